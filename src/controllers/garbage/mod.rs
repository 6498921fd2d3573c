//! The garbage collector: deletes what has lost its last owner, and ends foreground and orphaning
//! deletions.
//!
//! Why it asks before it acts: the graph is fed by watches and may be behind, so each decision about
//! an object reads it and its owners from the API, by name and uid, and each write is bound to the
//! uid and revision that were read (upstream's `garbagecollector.go`).

mod graph;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use super::{Kinds, ServedKind};
use crate::client::{DeleteOptions, PatchKind, Propagation, SharedClient, Target};
use crate::object::status::Result;
use crate::object::{GroupVersion, Gvr, Status, Value, meta};
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Progress, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::reflector::{self, Scope, Sink};
use crate::reconcile::{Change, ObjectKey};
use crate::stdx::tasks::Tasks;
use graph::{FOREGROUND, Graph, Node, ORPHAN, Place, Seen, Uid};

/// How often new and vanished kinds are looked for (upstream's figure).
const KINDS_PERIOD: Duration = Duration::from_secs(30);
/// The key of the pass that looks for kinds.
const KINDS_KEY: &str = "kinds";
/// Objects worked at once (upstream's `--concurrent-gc-syncs`).
const WORKERS: usize = 20;

/// Feeds the objects of one resource into the graph.
struct Feed {
    gvr: Arc<Gvr>,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
}

struct Shared {
    graph: Mutex<Graph>,
    /// Set while the controller runs.
    queue: Mutex<Option<Queue<ObjectKey>>>,
}

impl Shared {
    fn wake(&self, uids: Vec<Uid>) {
        if let Some(queue) = &*self.queue.lock() {
            for uid in uids {
                queue.add(ObjectKey::new("", &*uid));
            }
        }
    }
}

impl Feed {
    fn decode(&self, bytes: &[u8]) -> Option<Seen> {
        match serde_json::from_slice(bytes) {
            Ok(seen) => Some(seen),
            Err(error) => {
                tracing::error!(gvr = %self.gvr, "an object can't be decoded: {error}");
                None
            }
        }
    }

    fn advance(&self, revision: u64) {
        self.progress.send_modify(|it| it.revision = it.revision.max(revision));
    }
}

impl Sink for Feed {
    fn replace(&self, items: Vec<Bytes>, revision: u64) {
        let mut gone = self.shared.graph.lock().of_resource(&self.gvr);
        for bytes in items {
            if let Some(seen) = self.decode(&bytes) {
                gone.remove(seen.metadata.uid.as_str());
                let woken = self.shared.graph.lock().upsert(&self.gvr, &seen.metadata);
                self.shared.wake(woken);
            }
        }
        for uid in gone {
            let woken = self.shared.graph.lock().remove(&uid);
            self.shared.wake(woken);
        }
        self.progress.send_replace(Progress { synced: true, revision });
    }

    fn upsert(&self, object: Bytes) {
        if let Some(seen) = self.decode(&object) {
            let woken = self.shared.graph.lock().upsert(&self.gvr, &seen.metadata);
            self.shared.wake(woken);
            self.advance(seen.metadata.resource_version.parse().unwrap_or(0));
        }
    }

    fn remove(&self, object: Bytes) {
        if let Some(seen) = self.decode(&object) {
            let woken = self.shared.graph.lock().remove(&seen.metadata.uid);
            self.shared.wake(woken);
            self.advance(seen.metadata.resource_version.parse().unwrap_or(0));
        }
    }

    fn progress(&self, revision: u64) {
        self.advance(revision);
    }

    fn revision(&self) -> u64 {
        let progress = *self.progress.borrow();
        if progress.synced { progress.revision } else { 0 }
    }
}

#[async_trait]
impl Followed for Feed {
    fn progress(&self) -> Progress {
        *self.progress.borrow()
    }
    async fn synced(&self) {
        let _ = self.progress.subscribe().wait_for(|it| it.synced).await;
    }
    async fn reached(&self, revision: u64) {
        let _ = self.progress.subscribe().wait_for(|it| it.revision >= revision).await;
    }
    async fn gone(&self, _key: &ObjectKey, uid: &str) {
        let absent = |_: &Progress| self.shared.graph.lock().get(uid).is_none_or(|it| it.deleting);
        let _ = self.progress.subscribe().wait_for(absent).await;
    }
}

/// The controller.
pub struct GarbageCollector {
    shared: Arc<Shared>,
    client: SharedClient,
    kinds: Kinds,
    /// What `kinds` said last: it is asked about for each owner of each object.
    served: ArcSwap<Vec<ServedKind>>,
    tasks: Tasks,
    feeds: Mutex<HashMap<Gvr, (Arc<Feed>, Tasks)>>,
}

/// What an object's owners mean for it.
#[derive(Debug, Default)]
struct Owners {
    /// There, and staying.
    solid: Vec<String>,
    /// Gone.
    dangling: Vec<String>,
    /// There, and waiting for its dependents to go.
    waiting: Vec<String>,
}

impl GarbageCollector {
    /// Over all `kinds`, which it watches through `client`, under `tasks`.
    pub fn new(client: SharedClient, kinds: Kinds, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared { graph: Mutex::default(), queue: Mutex::new(None) });
        let (served, tasks) = (ArcSwap::default(), tasks.child());
        let collector = Self { shared, client, kinds, served, tasks, feeds: Mutex::default() };
        collector.follow_kinds();
        collector
    }

    fn ask_kinds(&self) -> Arc<Vec<ServedKind>> {
        let kinds = Arc::new((self.kinds)());
        self.served.store(kinds.clone());
        kinds
    }

    /// Starts feeds of new kinds; the feeds of vanished ones are returned, to be stopped.
    fn follow_kinds(&self) -> Vec<(Gvr, Tasks)> {
        let served = self.ask_kinds();
        // Events own nothing and are owned by nothing: not worth following.
        let wanted: Vec<&ServedKind> =
            served.iter().filter(|kind| kind.deletable && kind.gvr.resource != "events").collect();
        let mut feeds = self.feeds.lock();
        for kind in &wanted {
            if feeds.contains_key(&kind.gvr) {
                continue;
            }
            let feed = Arc::new(Feed {
                gvr: Arc::new(kind.gvr.clone()),
                shared: self.shared.clone(),
                progress: watch::channel(Progress::default()).0,
            });
            let group = self.tasks.child();
            let scope = Scope::all(Target::all(&kind.gvr, ""));
            reflector::start(&group, self.client.clone(), scope, feed.clone());
            feeds.insert(kind.gvr.clone(), (feed, group));
        }
        let vanished: Vec<Gvr> = feeds
            .keys()
            .filter(|gvr| !wanted.iter().any(|kind| kind.gvr == **gvr))
            .cloned()
            .collect();
        vanished
            .into_iter()
            .filter_map(|gvr| feeds.remove(&gvr).map(|(_, group)| (gvr, group)))
            .collect()
    }

    async fn refresh_kinds(&self) {
        for (gvr, group) in self.follow_kinds() {
            group.shutdown().await;
            let gone = self.shared.graph.lock().of_resource(&gvr);
            for uid in gone {
                let woken = self.shared.graph.lock().remove(&uid);
                self.shared.wake(woken);
            }
        }
    }

    /// Where an owner or a virtual node is, by its kind. `None`: a namespaced owner of an object
    /// without namespace, which can't exist.
    fn resolve(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> Result<Option<Target>> {
        let group = GroupVersion::parse(api_version).unwrap_or_else(|| GroupVersion::new("", ""));
        let find = |kinds: &[ServedKind]| {
            let matches = |it: &&ServedKind| it.gvr.group == group.group && it.kind == kind;
            let exact = kinds.iter().filter(matches).find(|it| it.gvr.version == group.version);
            exact.or_else(|| kinds.iter().find(matches)).cloned()
        };
        let served = find(&self.served.load()).or_else(|| find(&self.ask_kinds()));
        let Some(served) = served else {
            let text = format!("no matches for kind {kind:?} in version {api_version:?}");
            return Err(Status::failure(404, "NoMatch", text));
        };
        Ok(match (served.namespaced, namespace) {
            (true, "") => None,
            (true, _) => Some(Target::object(&served.gvr, namespace, name)),
            (false, _) => Some(Target::object(&served.gvr, "", name)),
        })
    }

    fn target_of(&self, node: &Node) -> Result<Option<Target>> {
        match &node.place {
            Place::Real { gvr, namespace, name } => Ok(Some(Target::object(gvr, namespace, name))),
            Place::Virtual { api_version, kind, name, namespace } => {
                self.resolve(api_version, kind, name, namespace)
            }
        }
    }

    async fn classify(&self, pass: &Pass, object: &Value) -> Result<Owners> {
        let mut owners = Owners::default();
        for reference in meta::owners(object) {
            let text = |field: &str| meta::text(reference, &[field]);
            let uid = text("uid").to_owned();
            let namespace = meta::namespace(object);
            let target = self.resolve(text("apiVersion"), text("kind"), text("name"), namespace)?;
            let Some(target) = target else {
                // It is invalid, and its dependent must not be deleted for that.
                owners.solid.push(uid);
                continue;
            };
            match pass.client().get(&target).await {
                Err(status) if status.is_not_found() => owners.dangling.push(uid),
                Err(status) => return Err(status),
                Ok(owner) if meta::uid(&owner) != uid => owners.dangling.push(uid),
                Ok(owner)
                    if meta::is_deleting(&owner)
                        && meta::finalizers(&owner).contains(&FOREGROUND) =>
                {
                    owners.waiting.push(uid);
                }
                Ok(_) => owners.solid.push(uid),
            }
        }
        Ok(owners)
    }

    /// Forgets a node that the API does not have.
    fn absent(&self, uid: &str) -> Result<()> {
        let woken = self.shared.graph.lock().remove(uid);
        self.shared.wake(woken);
        Ok(())
    }

    async fn collect(&self, pass: &Pass, uid: &str) -> Result<()> {
        let Some(node) = self.shared.graph.lock().get(uid) else { return Ok(()) };
        if node.orphans {
            return self.orphan(pass, uid, &node).await;
        }
        if node.deleting && !node.foreground {
            return Ok(());
        }
        let Some(target) = self.target_of(&node)? else { return Ok(()) };
        let object = match pass.client().get(&target).await {
            Ok(object) if meta::uid(&object) == uid => object,
            Ok(_) => return self.absent(uid),
            Err(status) if status.is_not_found() => return self.absent(uid),
            Err(status) => return Err(status),
        };
        if matches!(node.place, Place::Virtual { .. }) {
            // It exists; its feed will bring it.
            return Ok(());
        }
        if node.foreground {
            return self.end_foreground(pass, uid, &target, &object).await;
        }
        if meta::owners(&object).is_empty() {
            return Ok(());
        }
        let owners = self.classify(pass, &object).await?;
        if !owners.solid.is_empty() {
            let lost: Vec<String> = owners.dangling.into_iter().chain(owners.waiting).collect();
            return remove_owners(pass, &target, &object, &lost).await;
        }
        let dependents = self.shared.graph.lock().dependents(uid);
        let waits = !owners.waiting.is_empty() && !dependents.is_empty();
        if waits && dependents.iter().any(|(_, dependent)| dependent.foreground) {
            // A circle of waiting objects would wait for ever.
            unblock(pass, &target, &object).await?;
            let object = pass.client().get(&target).await?;
            return delete(pass, &target, &object, Propagation::Foreground).await;
        }
        let finalizers = meta::finalizers(&object);
        let propagation = if waits || finalizers.contains(&FOREGROUND) {
            Propagation::Foreground
        } else if finalizers.contains(&ORPHAN) {
            Propagation::Orphan
        } else {
            Propagation::Background
        };
        delete(pass, &target, &object, propagation).await
    }

    async fn end_foreground(
        &self,
        pass: &Pass,
        uid: &str,
        target: &Target,
        object: &Value,
    ) -> Result<()> {
        let blocking = self.shared.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return remove_finalizer(pass, target, object, FOREGROUND).await;
        }
        let waiting = blocking.into_iter().filter(|(_, dependent)| !dependent.foreground);
        self.shared.wake(waiting.map(|(uid, _)| uid).collect());
        Ok(())
    }

    /// Sets the dependents free, then lets the owner go.
    async fn orphan(&self, pass: &Pass, uid: &str, node: &Node) -> Result<()> {
        let dependents = self.shared.graph.lock().dependents(uid);
        for (dependent_uid, dependent) in dependents {
            let Some(target) = self.target_of(&dependent)? else { continue };
            let object = match pass.client().get(&target).await {
                Err(status) if status.is_not_found() => continue,
                other => other?,
            };
            if meta::uid(&object) == &*dependent_uid {
                remove_owners(pass, &target, &object, &[uid.to_owned()]).await?;
            }
        }
        let Some(target) = self.target_of(node)? else { return Ok(()) };
        match pass.client().get(&target).await {
            Ok(object) if meta::uid(&object) == uid => {
                remove_finalizer(pass, &target, &object, ORPHAN).await
            }
            Ok(_) => Ok(()),
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status),
        }
    }
}

/// Patches metadata of exactly the object that was read.
async fn patch(pass: &Pass, target: &Target, object: &Value, metadata: Value) -> Result<()> {
    let mut body = json!({ "metadata": metadata });
    meta::set(&mut body, &["metadata", "uid"], meta::uid(object));
    meta::set(&mut body, &["metadata", "resourceVersion"], meta::resource_version(object));
    let change = Change::Patch { target: target.clone(), kind: PatchKind::Merge, body };
    match pass.apply(change).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

async fn remove_finalizer(
    pass: &Pass,
    target: &Target,
    object: &Value,
    finalizer: &str,
) -> Result<()> {
    let mut finalizers = meta::finalizers(object);
    if !finalizers.contains(&finalizer) {
        return Ok(());
    }
    finalizers.retain(|name| *name != finalizer);
    patch(pass, target, object, json!({ "finalizers": finalizers })).await
}

async fn remove_owners(
    pass: &Pass,
    target: &Target,
    object: &Value,
    lost: &[String],
) -> Result<()> {
    let is_lost = |owner: &Value| lost.iter().any(|uid| meta::text(owner, &["uid"]) == uid);
    let owners = meta::owners(object);
    if !owners.iter().any(is_lost) {
        return Ok(());
    }
    let left: Vec<&Value> = owners.iter().filter(|owner| !is_lost(owner)).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    patch(pass, target, object, json!({ "ownerReferences": left })).await
}

async fn unblock(pass: &Pass, target: &Target, object: &Value) -> Result<()> {
    let mut owners = meta::owners(object).to_vec();
    for owner in &mut owners {
        owner["blockOwnerDeletion"] = json!(false);
    }
    patch(pass, target, object, json!({ "ownerReferences": owners })).await
}

async fn delete(
    pass: &Pass,
    target: &Target,
    object: &Value,
    propagation: Propagation,
) -> Result<()> {
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(meta::uid(object).to_owned()),
        resource_version: Some(meta::resource_version(object).to_owned()),
        ..DeleteOptions::default()
    };
    pass.apply(Change::Delete { target: target.clone(), options }).await.map(|_| ())
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        self.feeds.lock().values().map(|(feed, _)| feed.clone() as Arc<dyn Followed>).collect()
    }

    fn keys(&self) -> Vec<ObjectKey> {
        vec![ObjectKey::new(KINDS_KEY, KINDS_KEY)]
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        *self.shared.queue.lock() = Some(queue.clone());
        // What was noticed before there was a queue: everything is looked at once.
        let feeds: Vec<Gvr> = self.feeds.lock().keys().cloned().collect();
        for gvr in feeds {
            let uids = self.shared.graph.lock().pending(&gvr);
            self.shared.wake(uids);
        }
        Vec::new()
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        if key.namespace == KINDS_KEY {
            self.refresh_kinds().await;
            return Ok(Action::After(KINDS_PERIOD));
        }
        match self.collect(pass, &key.name).await {
            // An owner of a kind that is not served (yet): nothing is known about it.
            Err(status) if status.reason == "NoMatch" => {
                tracing::debug!(uid = %key.name, "an owner can't be looked up: {status}");
                Ok(Action::After(KINDS_PERIOD))
            }
            other => other.map(|()| Action::Await),
        }
    }
}
