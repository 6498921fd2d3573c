//! A read-only window on the stored objects, for what decides about requests: authentication,
//! authorization, admission and allocation.
//!
//! Why a trait: these parts read a handful of kinds by name and follow some of them; with this
//! window they need neither the store nor a server in their tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::storage;
use crate::object::{Value, meta};
use crate::store::{Entry, Event, EventKind, KeyRange, Keyspace, Store, Watcher};

/// A step in the life of a followed resource.
#[derive(Clone, Debug)]
pub enum Change {
    /// Everything that exists now; what was known before is void.
    Reset(Vec<Arc<Value>>),
    /// A new or changed object.
    Put(Arc<Value>),
    /// An object's end.
    Gone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Reads of the applied state. None of them waits.
pub trait Objects: Send + Sync + 'static {
    /// One object; `namespace` is "" for cluster-scoped kinds.
    fn get(&self, resource: &str, group: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// The objects of a resource in one namespace, or in all ("").
    fn list(&self, resource: &str, group: &str, namespace: &str) -> Vec<Arc<Value>>;

    /// The present state as one [`Change::Reset`], then what changes. The stream never ends by
    /// itself; a gap is closed by another reset.
    fn follow(&self, resource: &str, group: &str) -> BoxStream<'static, Change>;
}

/// A shared window.
pub type SharedObjects = Arc<dyn Objects>;

/// Decoded objects that are kept; when full, all are forgotten.
const DECODED_OBJECTS_MAX: usize = 4096;

/// The objects of the store, as this member has applied them.
///
/// Single objects are kept decoded by their revision: a token's account and pod are looked at on
/// every request and change by the hour.
pub struct StoreObjects {
    store: Store,
    decoded: RwLock<HashMap<Bytes, (u64, Arc<Value>)>>,
}

impl StoreObjects {
    /// A window on `store`.
    pub fn new(store: Store) -> Self {
        Self { store, decoded: RwLock::default() }
    }
}

/// An entry's object; `None` for what is none, which only a fault could leave there.
fn decode(entry: &Entry) -> Option<Arc<Value>> {
    match serde_json::from_slice(&entry.value) {
        Ok(value) => Some(Arc::new(value)),
        Err(error) => {
            tracing::error!(key = ?entry.key, "a stored object can't be read: {error}");
            None
        }
    }
}

fn decode_all(store: &Store, prefix: String) -> (u64, Vec<Arc<Value>>) {
    let view = store.view(Keyspace::Kubernetes);
    let range = KeyRange::prefix(prefix);
    let all = view.range(&range, None).filter_map(|entry| decode(&entry)).collect();
    (view.revision(), all)
}

impl Objects for StoreObjects {
    fn get(&self, resource: &str, group: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = storage::key(resource, group, namespace, name);
        let entry = self.store.view(Keyspace::Kubernetes).get(&key)?;
        if let Some((revision, value)) = self.decoded.read().get(&key)
            && *revision == entry.mod_revision
        {
            return Some(value.clone());
        }
        let value = decode(&entry)?;
        let mut decoded = self.decoded.write();
        if decoded.len() >= DECODED_OBJECTS_MAX {
            decoded.clear();
        }
        decoded.insert(key, (entry.mod_revision, value.clone()));
        Some(value)
    }

    fn list(&self, resource: &str, group: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = match namespace {
            "" => storage::prefix(resource, group),
            _ => storage::namespace_prefix(resource, group, namespace),
        };
        decode_all(&self.store, prefix).1
    }

    fn follow(&self, resource: &str, group: &str) -> BoxStream<'static, Change> {
        let prefix = storage::prefix(resource, group);
        let follower = Follower { store: self.store.clone(), prefix, watcher: None, known: 0 };
        let step = |mut follower: Follower| async move {
            let changes = follower.next().await?;
            Some((stream::iter(changes), follower))
        };
        stream::unfold(follower, step).flatten().boxed()
    }
}

/// A watch that starts anew where history no longer reaches it.
struct Follower {
    store: Store,
    prefix: String,
    watcher: Option<Watcher>,
    /// The revision of the last reset.
    known: u64,
}

impl Follower {
    /// The next changes; `None` once the store has stopped.
    async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            let Some(watcher) = &mut self.watcher else {
                // The watch first: what happens between it and the list is seen twice, not never.
                let range = KeyRange::prefix(self.prefix.clone());
                self.watcher = Some(self.store.watch(Keyspace::Kubernetes, range, 0).ok()?);
                let (revision, all) = decode_all(&self.store, self.prefix.clone());
                self.known = revision;
                return Some(vec![Change::Reset(all)]);
            };
            match watcher.next().await? {
                Ok(events) => {
                    let new = events.iter().filter(|event| event.revision > self.known);
                    return Some(new.filter_map(change_of).collect());
                }
                Err(crate::store::Error::Compacted { .. }) => self.watcher = None,
                Err(_) => return None,
            }
        }
    }
}

fn change_of(event: &Event) -> Option<Change> {
    match event.kind {
        EventKind::Put => decode(&event.entry).map(Change::Put),
        EventKind::Delete => {
            let (namespace, name) = storage::names(&event.entry.key)?;
            Some(Change::Gone { namespace: namespace.to_owned(), name: name.to_owned() })
        }
    }
}

/// Changes that a follower of [`MemoryObjects`] may be behind before it starts anew.
const MEMORY_BACKLOG_MAX: usize = 1024;

/// Objects in memory, for tests.
pub struct MemoryObjects {
    state: Arc<RwLock<BTreeMap<Bytes, Arc<Value>>>>,
    changes: broadcast::Sender<(Bytes, Change)>,
}

impl Default for MemoryObjects {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(MEMORY_BACKLOG_MAX);
        Self { state: Arc::default(), changes }
    }
}

impl MemoryObjects {
    /// With these objects, each given as (resource, group, object).
    pub fn with(objects: impl IntoIterator<Item = (&'static str, &'static str, Value)>) -> Self {
        let this = Self::default();
        for (resource, group, object) in objects {
            this.put(resource, group, object);
        }
        this
    }

    /// Stores an object under the names in its metadata.
    pub fn put(&self, resource: &str, group: &str, object: Value) {
        let key = storage::key(resource, group, meta::namespace(&object), meta::name(&object));
        let object = Arc::new(object);
        let mut state = self.state.write();
        state.insert(key.clone(), object.clone());
        // Nobody may be following; that is no failure.
        let _ = self.changes.send((key, Change::Put(object)));
    }

    /// Removes an object.
    pub fn remove(&self, resource: &str, group: &str, namespace: &str, name: &str) {
        let key = storage::key(resource, group, namespace, name);
        let mut state = self.state.write();
        state.remove(&key);
        let gone = Change::Gone { namespace: namespace.to_owned(), name: name.to_owned() };
        let _ = self.changes.send((key, gone));
    }
}

fn under(state: &BTreeMap<Bytes, Arc<Value>>, prefix: &str) -> Vec<Arc<Value>> {
    state
        .range(Bytes::copy_from_slice(prefix.as_bytes())..)
        .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
        .map(|(_, object)| object.clone())
        .collect()
}

impl Objects for MemoryObjects {
    fn get(&self, resource: &str, group: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.state.read().get(&storage::key(resource, group, namespace, name)).cloned()
    }

    fn list(&self, resource: &str, group: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = match namespace {
            "" => storage::prefix(resource, group),
            _ => storage::namespace_prefix(resource, group, namespace),
        };
        under(&self.state.read(), &prefix)
    }

    fn follow(&self, resource: &str, group: &str) -> BoxStream<'static, Change> {
        let prefix = storage::prefix(resource, group);
        // Subscribed under the lock, so that nothing falls between the state and the changes.
        let guard = self.state.read();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let first = Change::Reset(under(&guard, &prefix));
        drop(guard);
        let state = self.state.clone();
        let rest = changes.filter_map(move |change| {
            let change = match change {
                Ok((key, change)) => key.starts_with(prefix.as_bytes()).then_some(change),
                Err(_lagged) => Some(Change::Reset(under(&state.read(), &prefix))),
            };
            async move { change }
        });
        stream::once(async move { first }).chain(rest).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn the_stores_window_decodes_follows_and_forgets_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = crate::stdx::tasks::Tasks::new();
        let store = Store::open(crate::store::Config::new(dir.path()), &tasks).await.unwrap();
        let objects = StoreObjects::new(store.clone());
        let put = async |name: &str, label: &str| {
            let object = json!({"metadata": {"name": name, "labels": {"is": label}}});
            let key = storage::key("nodes", "", "", name);
            let op = crate::store::Op::put(key, serde_json::to_vec(&object).unwrap());
            store.txn(crate::store::Txn::new(Keyspace::Kubernetes).then(op)).await.unwrap();
        };
        put("a", "old").await;
        let mut changes = objects.follow("nodes", "");
        let Some(Change::Reset(first)) = changes.next().await else { panic!("no reset") };
        assert_eq!(first.len(), 1);
        let label = |object: Arc<Value>| object["metadata"]["labels"]["is"].clone();
        assert_eq!(label(objects.get("nodes", "", "", "a").unwrap()), "old");
        put("a", "new").await;
        assert_eq!(label(objects.get("nodes", "", "", "a").unwrap()), "new");
        let Some(Change::Put(changed)) = changes.next().await else { panic!("no change") };
        assert_eq!(label(changed), "new");
        let delete = crate::store::Op::delete(storage::key("nodes", "", "", "a"));
        store.txn(crate::store::Txn::new(Keyspace::Kubernetes).then(delete)).await.unwrap();
        assert!(matches!(changes.next().await, Some(Change::Gone { name, .. }) if name == "a"));
        assert!(objects.get("nodes", "", "", "a").is_none());
        assert!(objects.list("nodes", "", "").is_empty());
        drop((changes, objects, store));
        tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_follower_sees_the_state_and_then_each_change_of_its_resource() {
        let objects = MemoryObjects::with([
            ("pods", "", json!({"metadata": {"namespace": "a", "name": "p"}})),
            ("nodes", "", json!({"metadata": {"name": "n"}})),
        ]);
        let mut changes = objects.follow("pods", "");
        let Some(Change::Reset(first)) = changes.next().await else { panic!("no reset") };
        assert_eq!(first.len(), 1);
        objects.put("nodes", "", json!({"metadata": {"name": "n2"}}));
        objects.remove("pods", "", "a", "p");
        assert!(matches!(changes.next().await, Some(Change::Gone { name, .. }) if name == "p"));
        assert!(objects.get("pods", "", "a", "p").is_none());
        assert_eq!(objects.list("nodes", "", "").len(), 2);
    }
}
