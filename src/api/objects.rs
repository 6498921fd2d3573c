//! A read-only window on the stored objects, for what decides about requests: authentication,
//! authorization, admission and allocation.
//!
//! Why a trait: these parts read a handful of kinds by name and follow some of them; with this
//! window they need neither the store nor a server in their tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::storage;
use crate::object::{Value, meta};

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
