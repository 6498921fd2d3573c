//! Empties namespaces that are being deleted, pods first, then lets them go.
//!
//! Why pods first: what pods use (secrets, network policies) must outlive them. What remains, and
//! why, is told in the namespace's conditions (upstream's `namespaced_resources_deleter.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Kinds, ServedKind, pods};
use crate::client::{DeleteOptions, ListOptions, Propagation, Target};
use crate::object::status::Result;
use crate::object::{Gvr, Status, Value, meta};
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};
use crate::stdx::clock::SharedClock;

/// The finalizer that stands for this controller.
const FINALIZER: &str = "kubernetes";
/// Seconds that objects with finalizers are given before the next look.
const FINALIZERS_SECONDS: i64 = 15;
/// Objects listed at once.
const PAGE_OBJECTS: u64 = 500;

/// Type, and reason and message of all being well.
const CONDITIONS: &[(&str, &str, &str)] = &[
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// What is left of a namespace.
#[derive(Debug, Default)]
struct Remains {
    errors: Vec<String>,
    objects: BTreeMap<Gvr, usize>,
    finalizers: BTreeMap<String, usize>,
    /// Seconds that what is left may take.
    estimate: i64,
    only_pods_tried: bool,
}

impl Remains {
    fn add(&mut self, gvr: &Gvr, left: &[Value], grace: i64) {
        if left.is_empty() {
            return;
        }
        self.objects.insert(gvr.clone(), left.len());
        let held = left.iter().any(|object| !meta::finalizers(object).is_empty());
        for finalizer in left.iter().flat_map(meta::finalizers) {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
        let estimate = match (grace, held) {
            (0, true) => FINALIZERS_SECONDS,
            (0, false) => {
                self.errors.push(format!(
                    "unexpected items still remain in namespace: {} for gvr: {gvr}",
                    meta::namespace(&left[0])
                ));
                0
            }
            (grace, _) => grace,
        };
        self.estimate = self.estimate.max(estimate);
    }

    /// The conditions that say so, in place of those of all being well.
    fn told(&self) -> BTreeMap<&'static str, (&'static str, String)> {
        let mut told = BTreeMap::new();
        let count =
            |(what, number): (String, &usize), word: &str| format!("{what} {word} {number}");
        let list = |parts: Vec<String>| parts.join(", ");
        if !self.errors.is_empty() {
            let mut errors = self.errors.clone();
            errors.sort();
            let message = format!(
                "Failed to delete all resource types, {} remaining: {}",
                errors.len(),
                list(errors)
            );
            told.insert("NamespaceDeletionContentFailure", ("ContentDeletionFailed", message));
        }
        // While only pods have been tried, what else there is, is not known.
        if self.only_pods_tried {
            return told;
        }
        if !self.objects.is_empty() {
            let mut parts: Vec<String> = self
                .objects
                .iter()
                .map(|(gvr, number)| {
                    let name = format!("{}.{}", gvr.resource, gvr.group);
                    format!("{} resource instances", count((name, number), "has"))
                })
                .collect();
            parts.sort();
            let message = format!("Some resources are remaining: {}", list(parts));
            told.insert("NamespaceContentRemaining", ("SomeResourcesRemain", message));
        }
        if !self.finalizers.is_empty() {
            let parts = self.finalizers.iter().map(|(name, number)| {
                format!("{} resource instances", count((name.clone(), number), "in"))
            });
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(parts.collect())
            );
            told.insert("NamespaceFinalizersRemaining", ("SomeFinalizersRemain", message));
        }
        told
    }

    fn conditions(&self, old: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
        let told = self.told();
        let mut conditions = old.to_vec();
        for (kind, well, text) in CONDITIONS {
            let (status, reason, message) = match told.get(kind) {
                Some((reason, message)) => ("True", *reason, message.clone()),
                None => ("False", *well, (*text).to_owned()),
            };
            let mut new = NamespaceCondition {
                type_: (*kind).to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            };
            match conditions.iter_mut().find(|condition| condition.type_ == *kind) {
                Some(old) => {
                    if old.status == new.status {
                        new.last_transition_time = old.last_transition_time.clone();
                    }
                    *old = new;
                }
                None => conditions.push(new),
            }
        }
        conditions
    }
}

/// The controller.
pub struct Namespaces {
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    kinds: Kinds,
    clock: SharedClock,
}

impl Namespaces {
    /// Over shared informers; `kinds` are those to be emptied.
    pub fn new(informers: &Informers, kinds: Kinds, clock: SharedClock) -> Self {
        Self { namespaces: informers.of(), pods: informers.of(), kinds, clock }
    }

    /// The longest that live pods may still take, counted from the namespace's deletion.
    fn pod_grace(&self, namespace: &Namespace) -> i64 {
        let pods = self.pods.list(namespace.name());
        let live = pods.iter().filter(|pod| !pods::is_terminal(pod));
        let graces = live.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds);
        let grace = graces.max().unwrap_or(0);
        let since = namespace.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let passed = since.map_or(0, |since| self.clock.now().duration_since(since).as_secs());
        if passed >= grace { 0 } else { grace }
    }

    async fn empty(&self, pass: &Pass, namespace: &Namespace) -> Remains {
        let mut remains = Remains::default();
        let served = (self.kinds)();
        let mut kinds: Vec<&ServedKind> =
            served.iter().filter(|kind| kind.namespaced && kind.deletable).collect();
        let is_pods = |kind: &ServedKind| kind.gvr == Pod::gvr();
        kinds.sort_by_key(|kind| !is_pods(kind));
        for kind in kinds {
            let grace = if is_pods(kind) { self.pod_grace(namespace) } else { 0 };
            match delete_all(pass, &kind.gvr, namespace.name()).await {
                Ok(left) => remains.add(&kind.gvr, &left, grace),
                Err(status) => remains.errors.push(status.message),
            }
            if is_pods(kind) && !remains.objects.is_empty() {
                remains.only_pods_tried = true;
                break;
            }
        }
        remains
    }
}

/// Deletes all objects of a resource in a namespace; the answer is what is left of them.
async fn delete_all(pass: &Pass, gvr: &Gvr, namespace: &str) -> Result<Vec<Value>> {
    let target = Target::all(gvr, namespace);
    if list(pass, &target).await?.is_empty() {
        return Ok(Vec::new());
    }
    let options =
        DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    pass.client().delete_collection(&target, &options, &ListOptions::default()).await?;
    list(pass, &target).await
}

async fn list(pass: &Pass, target: &Target) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut options = ListOptions { limit: PAGE_OBJECTS, ..ListOptions::default() };
    loop {
        let page = match pass.client().list(target, &options).await {
            Ok(page) => page,
            // The kind went while its namespace did.
            Err(status) if status.is_not_found() => return Ok(items),
            Err(status) => return Err(status),
        };
        for bytes in &page.items {
            items.push(serde_json::from_slice(bytes).map_err(Status::internal)?);
        }
        if page.continue_token.is_empty() {
            return Ok(items);
        }
        options.continue_token = page.continue_token;
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn workers(&self) -> usize {
        10
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.namespaces.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.namespaces.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let own = queue.clone();
        let namespaces = self.namespaces.subscribe(move |notice| {
            if let Some(namespace) = notice.new.filter(|namespace| namespace.is_deleting()) {
                own.add(namespace.key());
            }
        });
        // The last pod's end is what an ending namespace waits for.
        let (all, queue) = (self.namespaces.clone(), queue.clone());
        let pods = self.pods.subscribe(move |notice| {
            if let (None, Some(pod)) = (notice.new, notice.old)
                && all.get("", pod.namespace()).is_some_and(|namespace| namespace.is_deleting())
            {
                queue.add(ObjectKey::new("", pod.namespace()));
            }
        });
        vec![namespaces, pods]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let Some(namespace) = self.namespaces.at(key) else { return Ok(Action::Await) };
        let finalizers = namespace.spec.clone().unwrap_or_default().finalizers;
        if !namespace.is_deleting() || finalizers.is_none_or(|list| list.is_empty()) {
            return Ok(Action::Await);
        }
        let remains = self.empty(pass, &namespace).await;
        let mut changed = (*namespace).clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        let old = status.conditions.take().unwrap_or_default();
        status.conditions = Some(remains.conditions(&old, self.clock.now()));
        if changed.status != namespace.status {
            match pass.apply(Change::update_status(&changed)).await {
                Err(status) if status.is_not_found() => return Ok(Action::Await),
                written => {
                    changed = Namespace::from_value(written?).map_err(Status::internal)?;
                }
            }
        }
        if !remains.errors.is_empty() {
            return Err(Status::internal(remains.errors.join(", ")));
        }
        if remains.estimate > 0 {
            let wait = u64::try_from(remains.estimate / 2 + 1).unwrap_or(1);
            return Ok(Action::After(Duration::from_secs(wait)));
        }
        if let Some(finalizers) = changed.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|name| name != FINALIZER);
        }
        let target = changed.target().sub("finalize");
        let change = Change::Update { target, object: changed.to_value() };
        match pass.apply(change).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(Action::Await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_remains_is_told_in_upstreams_words() {
        let pods = Gvr::new("", "v1", "pods");
        let held = json!({"metadata": {"namespace": "ns", "finalizers": ["a/b"]}});
        let mut remains = Remains::default();
        remains.add(&pods, &[held.clone(), held], 0);
        assert_eq!(remains.estimate, FINALIZERS_SECONDS);
        let now = Timestamp::UNIX_EPOCH;
        let conditions = remains.conditions(&[], now);
        assert_eq!(conditions.len(), 5);
        let message = |at: usize| conditions[at].message.as_deref().unwrap();
        assert_eq!(message(3), "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            message(4),
            "Some content in the namespace has finalizers remaining: a/b in 2 resource instances"
        );
        let later = now + Duration::from_secs(9);
        let well = Remains::default().conditions(&conditions, later);
        assert_eq!(well[3].status, "False");
        assert_eq!(well[3].last_transition_time, Some(Time(later)));
        assert_eq!(well[0].last_transition_time, Some(Time(now)));
        remains.add(&pods, &[json!({"metadata": {"namespace": "ns"}})], 0);
        assert_eq!(remains.errors.len(), 1);
    }
}
