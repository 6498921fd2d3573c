//! A decoded copy of a collection, indexed, that tells subscribers about changes.
//!
//! Why shared: one copy of each type serves all components of the process. Bytes are decoded once,
//! when they arrive, and handed around as `Arc<T>`; `managedFields`, which no component reads, is
//! dropped.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::reflector::{self, Scope, Sink};
use super::{Object, ObjectKey};
use crate::client::{SharedClient, Target};
use crate::object::Gvr;
use crate::stdx::tasks::Tasks;

/// A change as subscribers see it. `old` alone: it is gone; `new` alone: it came to be.
#[derive(Debug)]
pub struct Notice<'a, T> {
    /// The object before.
    pub old: Option<&'a Arc<T>>,
    /// The object now.
    pub new: Option<&'a Arc<T>>,
}

impl<T> Clone for Notice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Notice<'_, T> {}

impl<'a, T> Notice<'a, T> {
    /// The newest state there is.
    pub fn newest(&self) -> Option<&'a Arc<T>> {
        self.new.or(self.old)
    }

    /// Old and new, those there are.
    pub fn both(&self) -> impl Iterator<Item = &'a Arc<T>> {
        self.old.into_iter().chain(self.new)
    }
}

type Callback<T> = Box<dyn Fn(Notice<'_, T>) + Send + Sync>;
type IndexFn<T> = fn(&T) -> Vec<String>;

/// How far an informer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The present state has been read once.
    pub synced: bool,
    /// Everything up to this revision is in it, and subscribers have been told.
    pub revision: u64,
}

/// What can be asked of any informer, whatever its type.
#[async_trait]
pub trait Followed: Send + Sync + 'static {
    /// How far it is.
    fn progress(&self) -> Progress;
    /// Waits until the present state has been read once.
    async fn synced(&self);
    /// Waits until it has seen `revision`.
    async fn reached(&self, revision: u64);
    /// Waits until it holds no live object of this key and uid.
    async fn gone(&self, key: &ObjectKey, uid: &str);
}

struct Index<T> {
    of: IndexFn<T>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

struct Contents<T> {
    objects: BTreeMap<ObjectKey, Arc<T>>,
    indexes: HashMap<&'static str, Index<T>>,
}

struct Inner<T> {
    contents: RwLock<Contents<T>>,
    subscribers: RwLock<BTreeMap<u64, Callback<T>>>,
    next_subscriber: AtomicU64,
    progress: watch::Sender<Progress>,
}

/// A handle to the copy; clones share it.
pub struct Informer<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// The index of objects by the uid of each of their owners; every informer has it.
const BY_OWNER: &str = "owner";

fn owner_uids<T: Object>(object: &T) -> Vec<String> {
    let owners = object.metadata().owner_references.iter().flatten();
    owners.map(|owner| owner.uid.clone()).collect()
}

/// Ends a subscription when dropped. Never drop one inside a callback of the same informer.
pub struct Subscription {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl<T: Object> Informer<T> {
    /// An informer that nothing feeds yet; a test may feed it as a [`Sink`].
    pub fn detached() -> Self {
        let indexes =
            HashMap::from([(BY_OWNER, Index { of: owner_uids::<T>, keys: HashMap::new() })]);
        let contents = RwLock::new(Contents { objects: BTreeMap::new(), indexes });
        let inner = Inner {
            contents,
            subscribers: RwLock::default(),
            next_subscriber: AtomicU64::new(0),
            progress: watch::channel(Progress::default()).0,
        };
        Self { inner: Arc::new(inner) }
    }

    /// An informer of a part of a collection, not shared by the factory; "" for no selector.
    pub fn start(
        tasks: &Tasks,
        client: SharedClient,
        namespace: &str,
        label_selector: &str,
        field_selector: &str,
    ) -> Self {
        let informer = Self::detached();
        let scope = Scope {
            target: Target::all(&T::gvr(), namespace),
            label_selector: label_selector.to_owned(),
            field_selector: field_selector.to_owned(),
        };
        reflector::start(tasks, client, scope, Arc::new(informer.clone()));
        informer
    }

    /// The object of this name; `namespace` is "" for cluster-scoped ones.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.at(&ObjectKey::new(namespace, name))
    }

    /// The object of this key.
    pub fn at(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.inner.contents.read().objects.get(key).cloned()
    }

    /// The objects of a namespace, or all for "", in order of namespace and name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<T>> {
        let contents = self.inner.contents.read();
        if namespace.is_empty() {
            return contents.objects.values().cloned().collect();
        }
        let start = ObjectKey::new(namespace, "");
        let range = contents.objects.range(start..);
        range
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.inner.contents.read().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.contents.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index; where one of this name exists, it stays (components may share it).
    pub fn add_index(&self, name: &'static str, of: IndexFn<T>) {
        let mut contents = self.inner.contents.write();
        if contents.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { of, keys: HashMap::new() };
        for (key, object) in &contents.objects {
            index.insert(key, object);
        }
        contents.indexes.insert(name, index);
    }

    /// The objects that an index has under `value`; none for an unknown index.
    pub fn by(&self, index: &str, value: &str) -> Vec<Arc<T>> {
        let contents = self.inner.contents.read();
        let keys = contents.indexes.get(index).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| contents.objects.get(key).cloned()).collect()
    }

    /// The objects that have an owner of this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<T>> {
        self.by(BY_OWNER, uid)
    }

    /// Calls `callback` for each object there is now, then for each change, in order. It runs on the
    /// informer's task: it must be quick and not block.
    pub fn subscribe(
        &self,
        callback: impl Fn(Notice<'_, T>) + Send + Sync + 'static,
    ) -> Subscription {
        let mut subscribers = self.inner.subscribers.write();
        for object in self.list("") {
            callback(Notice { old: None, new: Some(&object) });
        }
        let id = self.inner.next_subscriber.fetch_add(1, Ordering::Relaxed);
        subscribers.insert(id, Box::new(callback));
        let inner = self.inner.clone();
        let end = Box::new(move || {
            inner.subscribers.write().remove(&id);
        });
        Subscription { end: Some(end) }
    }

    /// Changes with each new revision; for those who only want to be woken.
    pub fn changes(&self) -> watch::Receiver<Progress> {
        self.inner.progress.subscribe()
    }

    fn decode(bytes: &[u8]) -> Option<(ObjectKey, u64, Arc<T>)> {
        let mut object: T = match serde_json::from_slice(bytes) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(kind = T::KIND, "an object can't be decoded: {error}");
                return None;
            }
        };
        object.metadata_mut().managed_fields = None;
        let revision = object.metadata().resource_version.as_deref().unwrap_or("");
        let revision = revision.parse().unwrap_or(0);
        Some((object.key(), revision, Arc::new(object)))
    }

    fn notify(&self, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
        if old.is_none() && new.is_none() {
            return;
        }
        for callback in self.inner.subscribers.read().values() {
            callback(Notice { old, new });
        }
    }

    fn advance(&self, revision: u64) {
        self.inner.progress.send_if_modified(|progress| {
            let further = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            further
        });
    }
}

impl<T> Index<T> {
    fn insert(&mut self, key: &ObjectKey, object: &T) {
        for value in (self.of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &T) {
        for value in (self.of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

impl<T> Contents<T> {
    fn put(&mut self, key: ObjectKey, object: Option<Arc<T>>) -> Option<Arc<T>> {
        let old = match &object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            if let Some(object) = &object {
                index.insert(&key, object);
            }
        }
        old
    }
}

impl<T: Object> Sink for Informer<T> {
    fn replace(&self, items: Vec<Bytes>, revision: u64) {
        let mut missing: BTreeSet<ObjectKey> = self.keys().into_iter().collect();
        for bytes in items {
            let Some((key, _, object)) = Self::decode(&bytes) else { continue };
            missing.remove(&key);
            let old = self.inner.contents.write().put(key, Some(object.clone()));
            let unchanged = old.as_ref().is_some_and(|old| {
                let (old, new) = (old.metadata(), object.metadata());
                old.uid == new.uid && old.resource_version == new.resource_version
            });
            if !unchanged {
                self.notify(old.as_ref(), Some(&object));
            }
        }
        for key in missing {
            let old = self.inner.contents.write().put(key, None);
            self.notify(old.as_ref(), None);
        }
        self.inner.progress.send_replace(Progress { synced: true, revision });
    }

    fn upsert(&self, object: Bytes) {
        let Some((key, revision, object)) = Self::decode(&object) else { return };
        let old = self.inner.contents.write().put(key, Some(object.clone()));
        self.notify(old.as_ref(), Some(&object));
        self.advance(revision);
    }

    fn remove(&self, object: Bytes) {
        let Some((key, revision, object)) = Self::decode(&object) else { return };
        self.inner.contents.write().put(key, None);
        // The last state: what was set just before the end (a deletion time) may be news.
        self.notify(Some(&object), None);
        self.advance(revision);
    }

    fn progress(&self, revision: u64) {
        self.advance(revision);
    }

    fn revision(&self) -> u64 {
        let progress = *self.inner.progress.borrow();
        if progress.synced { progress.revision } else { 0 }
    }
}

#[async_trait]
impl<T: Object> Followed for Informer<T> {
    fn progress(&self) -> Progress {
        *self.inner.progress.borrow()
    }

    async fn synced(&self) {
        // The sender lives as long as self: an error can't happen.
        let _ = self.inner.progress.subscribe().wait_for(|progress| progress.synced).await;
    }

    async fn reached(&self, revision: u64) {
        let mut progress = self.inner.progress.subscribe();
        let _ = progress.wait_for(|progress| progress.revision >= revision).await;
    }

    async fn gone(&self, key: &ObjectKey, uid: &str) {
        let mut progress = self.inner.progress.subscribe();
        let live = |_: &Progress| {
            let found = self.at(key);
            found.is_some_and(|object| object.uid() == uid && !object.is_deleting())
        };
        let _ = progress.wait_for(|progress| !live(progress)).await;
    }
}

/// The informers of a process: one for each type, started when first asked for.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Factory>,
}

struct Factory {
    client: SharedClient,
    tasks: Tasks,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_type: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    by_resource: HashMap<Gvr, Arc<dyn Followed>>,
    selected: HashMap<(TypeId, String, String), Box<dyn Any + Send + Sync>>,
}

impl Informers {
    /// Informers that read through `client` and run under `tasks`.
    pub fn new(client: SharedClient, tasks: &Tasks) -> Self {
        let made = Mutex::default();
        Self { inner: Arc::new(Factory { client, tasks: tasks.clone(), made }) }
    }

    /// The informer of a type, over all namespaces.
    pub fn of<T: Object>(&self) -> Informer<T> {
        let mut made = self.inner.made.lock();
        if let Some(found) = made.by_type.get(&TypeId::of::<T>())
            && let Some(informer) = found.downcast_ref::<Informer<T>>()
        {
            return informer.clone();
        }
        let informer =
            Informer::<T>::start(&self.inner.tasks, self.inner.client.clone(), "", "", "");
        made.by_type.insert(TypeId::of::<T>(), Box::new(informer.clone()));
        made.by_resource.insert(T::gvr(), Arc::new(informer.clone()));
        informer
    }

    /// The informer of the part of a type, over all namespaces, that a label and a field selector
    /// let through; for those who need few of many. Executors do not wait for it.
    pub fn selected<T: Object>(&self, labels: &str, fields: &str) -> Informer<T> {
        let key = (TypeId::of::<T>(), labels.to_owned(), fields.to_owned());
        let mut made = self.inner.made.lock();
        if let Some(found) = made.selected.get(&key)
            && let Some(informer) = found.downcast_ref::<Informer<T>>()
        {
            return informer.clone();
        }
        let client = self.inner.client.clone();
        let informer = Informer::<T>::start(&self.inner.tasks, client, "", labels, fields);
        made.selected.insert(key, Box::new(informer.clone()));
        informer
    }

    /// The informer that follows a resource, if anyone asked for one.
    pub fn following(&self, gvr: &Gvr) -> Option<Arc<dyn Followed>> {
        self.inner.made.lock().by_resource.get(gvr).cloned()
    }

    /// The client that they read through.
    pub fn client(&self) -> SharedClient {
        self.inner.client.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;
    use crate::client::{DeleteOptions, PatchKind, WriteOptions};
    use crate::stdx::clock::SystemClock;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    async fn create(client: &SharedClient, namespace: &str, name: &str) -> u64 {
        let body = json!({"metadata": {"name": name, "ownerReferences": [{"uid": "u",
            "apiVersion": "v1", "kind": "Pod", "name": "p"}]}});
        let target = Target::all(&ConfigMap::gvr(), namespace);
        let made = client.create(&target, body, &WriteOptions::default()).await.unwrap();
        made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_indexes_tells_and_survives_a_compaction() {
        let server = FakeServer::new(SystemClock::shared());
        let client = server.client();
        let tasks = Tasks::new();
        create(&client, "a", "one").await;
        let informers = Informers::new(client.clone(), &tasks);
        let maps = informers.of::<ConfigMap>();
        maps.synced().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let subscription = maps.subscribe(move |notice| {
            let name = notice.newest().map(|map| map.key().to_string());
            log.lock().push((name.unwrap_or_default(), notice.new.is_some()));
        });
        maps.add_index("namespace", |map| vec![map.namespace().to_owned()]);
        let revision = create(&client, "b", "two").await;
        informers.of::<ConfigMap>().reached(revision).await;
        assert_eq!(maps.list("a").len(), 1);
        assert_eq!(maps.by("namespace", "b").len(), 1);
        assert_eq!(maps.owned_by("u").len(), 2);
        server.compact();
        let one = Target::object(&ConfigMap::gvr(), "a", "one");
        let uid = maps.get("a", "one").unwrap().uid().to_owned();
        client.delete(&one, &DeleteOptions::default()).await.unwrap();
        maps.gone(&ObjectKey::new("a", "one"), &uid).await;
        let two = Target::object(&ConfigMap::gvr(), "b", "two");
        let body = json!({"metadata": {"ownerReferences": null}});
        client.patch(&two, PatchKind::Merge, body, &WriteOptions::default()).await.unwrap();
        maps.reached(server.revision()).await;
        assert!(maps.owned_by("u").is_empty());
        drop(subscription);
        create(&client, "c", "three").await;
        maps.reached(server.revision()).await;
        let seen = seen.lock().clone();
        let told: Vec<_> = seen.iter().map(|(name, new)| (name.as_str(), *new)).collect();
        assert_eq!(told, [("a/one", true), ("b/two", true), ("a/one", false), ("b/two", true)]);
        tasks.shutdown().await;
    }
}
