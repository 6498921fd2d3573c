//! An API server in memory, for tests: the `Client` trait with revisions, watches, selectors,
//! optimistic concurrency, finalizers and graceful deletion.
//!
//! Why not mocks: controllers, scheduler and node are level-driven loops; what a test wants to know
//! is where they converge, and that needs a server that behaves. It keeps meta rules as upstream has
//! them and knows few kinds (`rules.rs`); it neither authorizes, validates nor collects garbage.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Client, DeleteOptions, List, ListOptions, PatchKind, Propagation, SharedClient, Target, Watch,
    WatchEvent, WriteOptions,
};
use crate::object::selector::{FieldRequirement, Selector, parse_fields};
use crate::object::status::{Cause, Result};
use crate::object::{Gvr, Status, Value, meta, time};
use crate::stdx::clock::SharedClock;
use crate::stdx::ids;

/// Changes that watches may be behind before they get a 410.
const HISTORY_CHANGES_MAX: usize = 100_000;
/// Requests that the log remembers; older ones are forgotten.
const LOG_REQUESTS_MAX: usize = 100_000;

/// A write that was asked for, for tests that count.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asked.
    pub user: String,
    /// "create", "update", "patch", "delete" or "deletecollection".
    pub verb: &'static str,
    /// What was addressed.
    pub target: Target,
}

/// Decides whether a write is refused; it sees the body, null for deletes.
pub type Gate = Arc<dyn Fn(&Request, &Value) -> Option<Status> + Send + Sync>;

/// The server; clones share its state.
#[derive(Clone)]
pub struct FakeServer {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    clock: SharedClock,
}

/// Objects of one resource by namespace and name.
type Collection = BTreeMap<(String, String), Arc<Stored>>;
/// Group and resource: the versions of a resource are one collection.
type Key = (String, String);

#[derive(Default)]
struct State {
    revision: u64,
    collections: BTreeMap<Key, Collection>,
    history: VecDeque<Change>,
    /// History up to and including this revision is gone.
    compacted: u64,
    log: VecDeque<Request>,
    gate: Option<Gate>,
    addresses: u32,
}

struct Stored {
    value: Value,
    bytes: Bytes,
}

#[derive(Clone)]
struct Change {
    revision: u64,
    key: Key,
    namespace: String,
    before: Option<Arc<Stored>>,
    /// The object after the change; for a deletion its last state, at the revision of its end.
    after: Arc<Stored>,
    deleted: bool,
}

fn key_of(gvr: &Gvr) -> Key {
    (gvr.group.clone(), gvr.resource.clone())
}

/// What a list or watch lets through.
struct Filter {
    namespace: Option<String>,
    name: String,
    labels: Selector,
    fields: Vec<FieldRequirement>,
}

impl Filter {
    fn new(target: &Target, options: &ListOptions) -> Result<Self> {
        Ok(Self {
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            labels: Selector::parse(&options.label_selector).map_err(Status::bad_request)?,
            fields: parse_fields(&options.field_selector).map_err(Status::bad_request)?,
        })
    }

    fn matches(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == meta::namespace(object))
            && (self.name.is_empty() || self.name == meta::name(object))
            && self.labels.matches(meta::labels(object))
            && self.fields.iter().all(|field| {
                let path: Vec<&str> = field.field.split('.').collect();
                (meta::text(object, &path) == field.value) != field.negated
            })
    }

    fn event(&self, change: &Change) -> Option<WatchEvent> {
        let before = change.before.as_ref().is_some_and(|old| self.matches(&old.value));
        let after = !change.deleted && self.matches(&change.after.value);
        let bytes = || change.after.bytes.clone();
        match (before, after) {
            (false, true) => Some(WatchEvent::Added(bytes())),
            (true, true) => Some(WatchEvent::Modified(bytes())),
            (true, false) => Some(WatchEvent::Deleted(bytes())),
            (false, false) => None,
        }
    }
}

impl FakeServer {
    /// An empty server that takes its times from `clock`.
    pub fn new(clock: SharedClock) -> Self {
        let (revision, _) = watch::channel(0);
        Self { inner: Arc::new(Inner { state: Mutex::default(), revision, clock }) }
    }

    /// A client for tests' own use.
    pub fn client(&self) -> SharedClient {
        self.client_as("system:admin")
    }

    /// A client whose requests are logged under a user's name.
    pub fn client_as(&self, user: &str) -> SharedClient {
        Arc::new(FakeClient { server: self.clone(), user: user.to_owned() })
    }

    /// Refuses the writes for which `gate` has a Status.
    pub fn set_gate(
        &self,
        gate: impl Fn(&Request, &Value) -> Option<Status> + Send + Sync + 'static,
    ) {
        self.inner.state.lock().gate = Some(Arc::new(gate));
    }

    /// Lets all writes pass again.
    pub fn clear_gate(&self) {
        self.inner.state.lock().gate = None;
    }

    /// The writes so far, oldest first; the log is emptied.
    pub fn take_log(&self) -> Vec<Request> {
        self.inner.state.lock().log.drain(..).collect()
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.inner.state.lock().revision
    }

    /// Forgets history: watches that resume from earlier revisions get a 410.
    pub fn compact(&self) {
        let mut state = self.inner.state.lock();
        state.compacted = state.revision;
        state.history.clear();
    }

    /// Stores an object just as given (status too), in place of any of its name. Uid, creation time
    /// and revision are filled in.
    pub fn put(&self, gvr: &Gvr, mut object: Value) -> Value {
        let mut state = self.inner.state.lock();
        self.stamp(&mut object);
        self.inner.store(&mut state, gvr, object)
    }

    /// All objects of a resource, in order of namespace and name.
    pub fn all(&self, gvr: &Gvr) -> Vec<Value> {
        let state = self.inner.state.lock();
        let collection = state.collections.get(&key_of(gvr));
        collection.into_iter().flat_map(|all| all.values()).map(|one| one.value.clone()).collect()
    }

    /// The resources that have or had objects.
    pub fn resources(&self) -> Vec<(String, String)> {
        self.inner.state.lock().collections.keys().cloned().collect()
    }

    fn stamp(&self, object: &mut Value) {
        if meta::uid(object).is_empty() {
            meta::set(object, &["metadata", "uid"], ids::uid());
        }
        if meta::text(object, &["metadata", "creationTimestamp"]).is_empty() {
            let now = time::seconds(self.inner.clock.now());
            meta::set(object, &["metadata", "creationTimestamp"], now);
        }
    }
}

impl Inner {
    fn store(&self, state: &mut State, gvr: &Gvr, object: Value) -> Value {
        self.record(state, gvr, object, false)
    }

    fn remove(&self, state: &mut State, gvr: &Gvr, object: Value) -> Value {
        self.record(state, gvr, object, true)
    }

    fn record(&self, state: &mut State, gvr: &Gvr, mut object: Value, deleted: bool) -> Value {
        state.revision += 1;
        let revision = state.revision;
        meta::set(&mut object, &["metadata", "resourceVersion"], revision.to_string());
        let place = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let bytes = Bytes::from(serde_json::to_vec(&object).unwrap_or_default());
        let after = Arc::new(Stored { value: object.clone(), bytes });
        let collection = state.collections.entry(key_of(gvr)).or_default();
        let namespace = place.0.clone();
        let before = match deleted {
            true => collection.remove(&place),
            false => collection.insert(place, after.clone()),
        };
        let key = key_of(gvr);
        state.history.push_back(Change { revision, key, namespace, before, after, deleted });
        if state.history.len() > HISTORY_CHANGES_MAX
            && let Some(oldest) = state.history.pop_front()
        {
            state.compacted = oldest.revision;
        }
        self.revision.send_replace(revision);
        object
    }

    /// Stores a changed object, or ends it when nothing holds it any longer.
    fn settle(&self, state: &mut State, gvr: &Gvr, object: Value) -> Value {
        match rules::is_finished(gvr, &object) {
            true => self.remove(state, gvr, object),
            false => self.store(state, gvr, object),
        }
    }
}

impl State {
    fn find(&self, target: &Target) -> Result<Arc<Stored>> {
        let place = (target.namespace.clone().unwrap_or_default(), target.name.clone());
        let found = self.collections.get(&key_of(&target.gvr)).and_then(|all| all.get(&place));
        found.cloned().ok_or_else(|| Status::not_found(&target.gvr, &target.name))
    }

    fn exists(&self, gvr: &Gvr, object: &Value) -> bool {
        let place = (meta::namespace(object).to_owned(), meta::name(object).to_owned());
        self.collections.get(&key_of(gvr)).is_some_and(|all| all.contains_key(&place))
    }

    fn matching(&self, target: &Target, filter: &Filter) -> Vec<Arc<Stored>> {
        let collection = self.collections.get(&key_of(&target.gvr));
        let all = collection.into_iter().flat_map(|all| all.values());
        all.filter(|one| filter.matches(&one.value)).cloned().collect()
    }

    /// NamespaceLifecycle: nothing new in a namespace that is ending.
    fn check_namespace(&self, target: &Target) -> Result<()> {
        let Some(namespace) = &target.namespace else { return Ok(()) };
        let place = Target::object(&Gvr::new("", "v1", "namespaces"), "", namespace);
        let Ok(found) = self.find(&place) else { return Ok(()) };
        if !meta::is_deleting(&found.value) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut status = Status::forbidden(&target.gvr, &target.name, &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(status)
    }
}

/// A client of the fake server.
struct FakeClient {
    server: FakeServer,
    user: String,
}

impl FakeClient {
    /// Logs a write and asks the gate.
    fn enter(&self, verb: &'static str, target: &Target, body: &Value) -> Result<()> {
        let request = Request { user: self.user.clone(), verb, target: target.clone() };
        let gate = {
            let mut state = self.server.inner.state.lock();
            if state.log.len() >= LOG_REQUESTS_MAX {
                state.log.pop_front();
            }
            state.log.push_back(request.clone());
            state.gate.clone()
        };
        match gate.and_then(|gate| gate(&request, body)) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    fn post_subresource(&self, target: &Target, body: &Value) -> Result<Value> {
        let inner = &self.server.inner;
        let mut state = inner.state.lock();
        let stored = state.find(target)?;
        match (target.gvr.resource.as_str(), target.subresource.as_str()) {
            ("pods", "binding") => {
                let mut pod = stored.value.clone();
                rules::bind(target, &mut pod, body, inner.clock.now())?;
                inner.store(&mut state, &target.gvr, pod);
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
            }
            ("pods", "eviction") => {
                let given = body.get("deleteOptions");
                let grace = given.and_then(|options| options.get("gracePeriodSeconds"));
                let options = DeleteOptions {
                    grace_period_seconds: grace.and_then(Value::as_i64),
                    ..DeleteOptions::default()
                };
                self.delete_stored(&mut state, &target.gvr, &stored, &options)?;
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
            }
            _ => Err(Status::no_such_path()),
        }
    }

    /// One attempt to replace what `old` was with `new`.
    fn replace(&self, target: &Target, new: Value, dry_run: bool) -> Result<Value> {
        let inner = &self.server.inner;
        let mut state = inner.state.lock();
        let old = state.find(target)?;
        let revision = meta::resource_version(&new);
        if !revision.is_empty() && revision != meta::resource_version(&old.value) {
            return Err(Status::stale(&target.gvr, &target.name));
        }
        let uid = meta::uid(&new);
        if !uid.is_empty() && uid != meta::uid(&old.value) {
            let have = meta::uid(&old.value);
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
            );
            return Err(Status::conflict(&target.gvr, &target.name, &why));
        }
        let merged = rules::merge_update(&target.gvr, &target.subresource, &old.value, new)?;
        if merged == old.value || dry_run {
            return Ok(merged);
        }
        Ok(inner.settle(&mut state, &target.gvr, merged))
    }

    fn delete_stored(
        &self,
        state: &mut State,
        gvr: &Gvr,
        stored: &Stored,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let inner = &self.server.inner;
        let object = &stored.value;
        for (given, have, word) in [
            (&options.uid, meta::uid(object), "UID"),
            (&options.resource_version, meta::resource_version(object), "ResourceVersion"),
        ] {
            if let Some(given) = given
                && given != have
            {
                let why = format!(
                    "Precondition failed: {word} in precondition: {given}, {word} in object meta: \
                     {have}"
                );
                return Err(Status::conflict(gvr, meta::name(object), &why));
            }
        }
        let mut ending = object.clone();
        rules::begin_deletion(gvr, &mut ending, options, inner.clock.now());
        let gone = rules::is_finished(gvr, &ending);
        let deleted = Status::deleted(gvr, meta::name(object), meta::uid(object)).to_value();
        if options.dry_run {
            return Ok(if gone { deleted } else { ending });
        }
        if ending != *object || gone {
            ending = inner.settle(state, gvr, ending);
        }
        Ok(if gone { deleted } else { ending })
    }
}

#[async_trait]
impl Client for FakeClient {
    async fn get(&self, target: &Target) -> Result<Value> {
        Ok(self.server.inner.state.lock().find(target)?.value.clone())
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let filter = Filter::new(target, options)?;
        let state = self.server.inner.state.lock();
        let mut found = state.matching(target, &filter);
        let place =
            |one: &Stored| format!("{}/{}", meta::namespace(&one.value), meta::name(&one.value));
        if !options.continue_token.is_empty() {
            let from = options.continue_token.as_str();
            found.retain(|one| place(one).as_str() > from);
        }
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        let mut continue_token = String::new();
        if limit > 0 && found.len() > limit {
            found.truncate(limit);
            continue_token = found.last().map(|one| place(one)).unwrap_or_default();
        }
        let items = found.iter().map(|one| one.bytes.clone()).collect();
        Ok(List { resource_version: state.revision, continue_token, items })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let filter = Filter::new(target, options)?;
        let mut first = Vec::new();
        let from = match options.resource_version.as_str() {
            "" | "0" => {
                let state = self.server.inner.state.lock();
                let present = state.matching(target, &filter);
                first.extend(present.iter().map(|one| WatchEvent::Added(one.bytes.clone())));
                state.revision
            }
            revision => revision
                .parse()
                .map_err(|_| Status::bad_request(format!("invalid revision {revision:?}")))?,
        };
        if options.send_initial_events {
            let resource_version = from;
            first.push(WatchEvent::Bookmark { resource_version, initial_events_end: true });
        }
        let follow = follow(self.server.clone(), key_of(&target.gvr), filter, from);
        Ok(futures::stream::iter(first.into_iter().map(Ok)).chain(follow).boxed())
    }

    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        self.enter("create", target, &body)?;
        if !target.subresource.is_empty() {
            return self.post_subresource(target, &body);
        }
        let mut object = body;
        let inner = &self.server.inner;
        let mut state = inner.state.lock();
        state.check_namespace(target)?;
        if let Some(namespace) = &target.namespace {
            meta::set(&mut object, &["metadata", "namespace"], namespace.as_str());
        }
        let prefix = meta::text(&object, &["metadata", "generateName"]).to_owned();
        if meta::name(&object).is_empty() && !prefix.is_empty() {
            let name = format!("{prefix}{}", ids::suffix(ids::SUFFIX_LENGTH));
            meta::set(&mut object, &["metadata", "name"], name);
        }
        if meta::name(&object).is_empty() {
            return Err(Status::bad_request("name or generateName is required"));
        }
        if state.exists(&target.gvr, &object) {
            return Err(Status::already_exists(&target.gvr, meta::name(&object)));
        }
        for server_owned in ["uid", "creationTimestamp", "resourceVersion", "deletionTimestamp"] {
            meta::remove(&mut object, &["metadata", server_owned]);
        }
        self.server.stamp(&mut object);
        rules::prepare_create(&target.gvr, &mut object, &mut state.addresses);
        if options.dry_run {
            return Ok(object);
        }
        Ok(inner.store(&mut state, &target.gvr, object))
    }

    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        self.enter("update", target, &body)?;
        self.replace(target, body, options.dry_run)
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchKind,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        self.enter("patch", target, &body)?;
        let mut object = self.server.inner.state.lock().find(target)?.value.clone();
        rules::patch(&mut object, kind, &body)?;
        // No await stands between reading and replacing, yet other threads may write: the object
        // carries its revision unless the patch itself names one.
        self.replace(target, object, options.dry_run)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Value> {
        self.enter("delete", target, &Value::Null)?;
        let mut state = self.server.inner.state.lock();
        let stored = state.find(target)?;
        self.delete_stored(&mut state, &target.gvr, &stored, options)
    }

    async fn delete_collection(
        &self,
        target: &Target,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<()> {
        self.enter("deletecollection", target, &Value::Null)?;
        let filter = Filter::new(target, which)?;
        let mut state = self.server.inner.state.lock();
        for stored in state.matching(target, &filter) {
            self.delete_stored(&mut state, &target.gvr, &stored, options)?;
        }
        Ok(())
    }
}

/// The changes of one collection after `from`, as they happen.
fn follow(
    server: FakeServer,
    key: Key,
    filter: Filter,
    from: u64,
) -> impl futures::Stream<Item = Result<WatchEvent>> + Send + 'static {
    struct Cursor {
        server: FakeServer,
        seen: watch::Receiver<u64>,
        key: Key,
        filter: Filter,
        at: u64,
        ready: VecDeque<WatchEvent>,
        over: bool,
    }
    let seen = server.inner.revision.subscribe();
    let cursor =
        Cursor { server, seen, key, filter, at: from, ready: VecDeque::new(), over: false };
    futures::stream::unfold(cursor, |mut cursor| async move {
        loop {
            if cursor.over {
                return None;
            }
            if let Some(event) = cursor.ready.pop_front() {
                return Some((Ok(event), cursor));
            }
            cursor.seen.borrow_and_update();
            let expired = {
                let state = cursor.server.inner.state.lock();
                let start = state.history.partition_point(|change| change.revision <= cursor.at);
                for change in state.history.range(start..) {
                    let inside = cursor.filter.namespace.as_ref();
                    if change.key == cursor.key && inside.is_none_or(|ns| *ns == change.namespace) {
                        cursor.ready.extend(cursor.filter.event(change));
                    }
                }
                let expired = cursor.at < state.compacted;
                cursor.at = state.revision;
                expired
            };
            if expired {
                cursor.over = true;
                let text = "too old resource version";
                return Some((Err(Status::expired(text)), cursor));
            }
            if cursor.ready.is_empty() && cursor.seen.changed().await.is_err() {
                return None;
            }
        }
    })
}

/// The name of the propagation policy's finalizer, if it has one.
fn propagation_finalizer(propagation: Propagation) -> Option<&'static str> {
    match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    }
}
