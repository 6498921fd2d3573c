//! The ConfigMaps and Secrets that pods of this node name, each followed by a watch of its own.
//!
//! Why one watch an object: a node may read only what its pods name (the Node authorizer), and a
//! change must reach the volumes that show it without polling. What no pod names any more is let
//! go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;

use super::pods::Model;
use crate::client::SharedClient;
use crate::reconcile::Informer;
use crate::reconcile::informer::{Followed, Subscription};
use crate::stdx::tasks::Tasks;

/// How long a first look at an object may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// What of a pod's namespace it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

type Key = (SourceKind, String, String);

/// Called with a pod's uid when something that it names has changed.
pub type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

enum Copy {
    ConfigMap(Informer<core::ConfigMap>),
    Secret(Informer<core::Secret>),
}

struct Followee {
    copy: Copy,
    tasks: Tasks,
    users: Arc<Mutex<BTreeSet<String>>>,
    _told: Subscription,
}

/// The followed objects.
pub struct Sources {
    client: SharedClient,
    tasks: Tasks,
    on_change: OnChange,
    followed: Mutex<BTreeMap<Key, Followee>>,
}

impl Sources {
    /// Nothing followed yet.
    pub fn new(client: SharedClient, tasks: Tasks, on_change: OnChange) -> Self {
        Self { client, tasks, on_change, followed: Mutex::default() }
    }

    /// From now on `uid` needs exactly these objects.
    pub fn hold(&self, uid: &str, namespace: &str, wanted: &BTreeSet<(SourceKind, String)>) {
        let key = |(kind, name): &(SourceKind, String)| (*kind, namespace.to_owned(), name.clone());
        let wanted: BTreeSet<Key> = wanted.iter().map(key).collect();
        let mut followed = self.followed.lock();
        for key in &wanted {
            if !followed.contains_key(key) {
                followed.insert(key.clone(), self.follow(key));
            }
            if let Some(followee) = followed.get(key) {
                followee.users.lock().insert(uid.to_owned());
            }
        }
        let mut ended = Vec::new();
        followed.retain(|key, followee| {
            if wanted.contains(key) {
                return true;
            }
            let mut users = followee.users.lock();
            users.remove(uid);
            if users.is_empty() {
                ended.push(followee.tasks.clone());
            }
            !users.is_empty()
        });
        drop(followed);
        ended.iter().for_each(|tasks| tasks.stop_token().cancel());
    }

    /// `uid` needs nothing any more.
    pub fn release(&self, uid: &str) {
        self.hold(uid, "", &BTreeSet::new());
    }

    fn follow(&self, (kind, namespace, name): &Key) -> Followee {
        let tasks = self.tasks.child();
        let users: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (told, on_change) = (users.clone(), self.on_change.clone());
        let tell = move || {
            let users: Vec<String> = told.lock().iter().cloned().collect();
            users.iter().for_each(|uid| on_change(uid));
        };
        let field = format!("metadata.name={name}");
        let client = self.client.clone();
        let (copy, told) = match kind {
            SourceKind::ConfigMap => {
                let copy = Informer::start(&tasks, client, namespace, "", &field);
                let told = copy.subscribe(move |_| tell());
                (Copy::ConfigMap(copy), told)
            }
            SourceKind::Secret => {
                let copy = Informer::start(&tasks, client, namespace, "", &field);
                let told = copy.subscribe(move |_| tell());
                (Copy::Secret(copy), told)
            }
        };
        Followee { copy, tasks, users, _told: told }
    }

    /// The present state of everything that `uid` holds in `namespace`.
    pub async fn read(
        &self,
        namespace: &str,
        wanted: &BTreeSet<(SourceKind, String)>,
    ) -> Result<Found, String> {
        let mut found = Found::default();
        for (kind, name) in wanted {
            let key = (*kind, namespace.to_owned(), name.clone());
            let copy = match self.followed.lock().get(&key).map(|followee| &followee.copy) {
                Some(Copy::ConfigMap(copy)) => Copy::ConfigMap(copy.clone()),
                Some(Copy::Secret(copy)) => Copy::Secret(copy.clone()),
                None => continue,
            };
            let late = |kind: &str| {
                format!("failed to sync {kind} cache: timed out waiting for the condition")
            };
            match copy {
                Copy::ConfigMap(copy) => {
                    synced(&copy).await.ok_or_else(|| late("configmap"))?;
                    let object = copy.get(namespace, name);
                    found.config_maps.extend(object.map(|object| (name.clone(), object)));
                }
                Copy::Secret(copy) => {
                    synced(&copy).await.ok_or_else(|| late("secret"))?;
                    let object = copy.get(namespace, name);
                    found.secrets.extend(object.map(|object| (name.clone(), object)));
                }
            }
        }
        Ok(found)
    }
}

async fn synced(copy: &impl Followed) -> Option<()> {
    tokio::time::timeout(SYNC_TIMEOUT, copy.synced()).await.ok()
}

/// The objects that exist, by name.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Arc<core::ConfigMap>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Arc<core::Secret>>,
}

/// The names of all ConfigMaps and Secrets that a pod may read on this node.
pub fn wanted(model: &Model) -> BTreeSet<(SourceKind, String)> {
    let mut names = BTreeSet::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            names.insert((kind, name.to_owned()));
        }
    };
    for unit in &model.units {
        for source in unit.spec.env_from.iter().flatten() {
            source.config_map_ref.iter().for_each(|from| add(SourceKind::ConfigMap, &from.name));
            source.secret_ref.iter().for_each(|from| add(SourceKind::Secret, &from.name));
        }
        for from in unit.spec.env.iter().flatten().filter_map(|one| one.value_from.as_ref()) {
            let key = from.config_map_key_ref.as_ref();
            key.into_iter().for_each(|from| add(SourceKind::ConfigMap, &from.name));
            let key = from.secret_key_ref.as_ref();
            key.into_iter().for_each(|from| add(SourceKind::Secret, &from.name));
        }
    }
    for secret in model.spec().image_pull_secrets.iter().flatten() {
        add(SourceKind::Secret, &secret.name);
    }
    for volume in model.spec().volumes.iter().flatten() {
        if let Some(from) = &volume.config_map {
            add(SourceKind::ConfigMap, &from.name);
        }
        if let Some(from) = &volume.secret {
            add(SourceKind::Secret, from.secret_name.as_deref().unwrap_or(""));
        }
        let projected = volume.projected.iter().flat_map(|all| all.sources.iter().flatten());
        for source in projected {
            source.config_map.iter().for_each(|from| add(SourceKind::ConfigMap, &from.name));
            source.secret.iter().for_each(|from| add(SourceKind::Secret, &from.name));
        }
    }
    names
}
