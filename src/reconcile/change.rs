//! What a plan may ask for, and the one place that does it.
//!
//! Why values: a plan that returns changes can be tested without a server, and everything a
//! component writes goes through one executor that sets preconditions and remembers the revisions
//! written.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;

use super::informer::Informers;
use super::recorder::{EventType, Recorder};
use super::{Object, ObjectKey};
use crate::client::{DeleteOptions, PatchKind, SharedClient, Target, WriteOptions};
use crate::object::status::Result;
use crate::object::{Gvr, Value, meta};

/// How long a key waits for its informers to see its own writes; then it goes on, as upstream's
/// expectations expire.
const OWN_WRITES_WAIT_MAX: Duration = Duration::from_secs(30);
/// Writes of one pass that are under way at once.
pub const CONCURRENT_WRITES_MAX: usize = 64;

/// One write, or one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Makes an object; `target` is its collection.
    Create {
        /// The collection.
        target: Target,
        /// The object.
        object: Value,
    },
    /// Replaces an object or a subresource (`status`, `finalize`). The body's resourceVersion is
    /// the precondition.
    Update {
        /// The object or subresource.
        target: Target,
        /// The new state.
        object: Value,
    },
    /// Patches an object or a subresource.
    Patch {
        /// The object or subresource.
        target: Target,
        /// The kind of patch.
        kind: PatchKind,
        /// The patch.
        body: Value,
    },
    /// Deletes an object. That it is gone already is a success.
    Delete {
        /// The object.
        target: Target,
        /// Grace, propagation, preconditions.
        options: DeleteOptions,
    },
    /// Evicts a pod.
    Evict {
        /// The pod.
        target: Target,
    },
    /// Tells people.
    Event {
        /// About what.
        regarding: ObjectReference,
        /// Normal or Warning.
        kind: EventType,
        /// A word, as in "SuccessfulCreate".
        reason: String,
        /// A sentence.
        message: String,
    },
}

impl Change {
    /// Creates a typed object.
    pub fn create<T: Object>(object: &T) -> Self {
        let target = Target::all(&T::gvr(), object.namespace());
        Self::Create { target, object: object.to_value() }
    }

    /// Replaces a typed object.
    pub fn update<T: Object>(object: &T) -> Self {
        Self::Update { target: object.target(), object: object.to_value() }
    }

    /// Replaces a typed object's status.
    pub fn update_status<T: Object>(object: &T) -> Self {
        Self::Update { target: object.target().sub("status"), object: object.to_value() }
    }

    /// Merges `body` into an object, which must still be the one of this uid.
    pub fn merge<T: Object>(object: &T, mut body: Value) -> Self {
        meta::set(&mut body, &["metadata", "uid"], object.uid());
        Self::Patch { target: object.target(), kind: PatchKind::Merge, body }
    }

    /// Merges `body` into an object, which must still be at this very revision: for lists, which a
    /// merge replaces as a whole.
    pub fn merge_exact<T: Object>(object: &T, mut body: Value) -> Self {
        let revision = object.metadata().resource_version.as_deref().unwrap_or("");
        meta::set(&mut body, &["metadata", "resourceVersion"], revision);
        Self::merge(object, body)
    }

    /// Deletes exactly this object, with its own grace.
    pub fn delete<T: Object>(object: &T) -> Self {
        let options =
            DeleteOptions { uid: Some(object.uid().to_owned()), ..DeleteOptions::default() };
        Self::Delete { target: object.target(), options }
    }

    /// An event about a typed object.
    pub fn event<T: Object>(
        object: &T,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        let regarding = reference_to(object);
        Self::Event { regarding, kind, reason: reason.to_owned(), message: message.into() }
    }
}

/// A reference to a typed object, as events carry it.
pub fn reference_to<T: Object>(object: &T) -> ObjectReference {
    ObjectReference {
        api_version: Some(T::API_VERSION.to_owned()),
        kind: Some(T::KIND.to_owned()),
        name: object.metadata().name.clone(),
        namespace: object.metadata().namespace.clone(),
        uid: object.metadata().uid.clone(),
        resource_version: object.metadata().resource_version.clone(),
        field_path: None,
    }
}

/// Writes changes as one user.
#[derive(Clone)]
pub struct Executor {
    client: SharedClient,
    informers: Informers,
    recorder: Recorder,
}

impl Executor {
    /// An executor that writes through `client` and waits for what `informers` see.
    pub fn new(client: SharedClient, informers: Informers, recorder: Recorder) -> Self {
        Self { client, informers, recorder }
    }

    /// A new pass.
    pub fn pass(&self) -> Pass {
        Pass { executor: Arc::new(self.clone()), written: Mutex::default() }
    }
}

enum Written {
    Revision(Gvr, u64),
    Gone(Gvr, ObjectKey, String),
}

/// One pass of one key: writes, and remembers what its informers must have seen before the next.
pub struct Pass {
    executor: Arc<Executor>,
    written: Mutex<Vec<Written>>,
}

impl Pass {
    /// The client, for reads that must not be cached. Writes go through [`Pass::apply`].
    pub fn client(&self) -> &SharedClient {
        &self.executor.client
    }

    /// Applies one change; the answer is the object as written, null for events and for deletions
    /// of what was gone.
    pub async fn apply(&self, change: Change) -> Result<Value> {
        let client = &self.executor.client;
        let write = WriteOptions::default();
        match change {
            Change::Create { target, object } => {
                let made = client.create(&target, object, &write).await?;
                Ok(self.wrote(&target, made))
            }
            Change::Update { target, object } => {
                let made = client.update(&target, object, &write).await?;
                Ok(self.wrote(&target, made))
            }
            Change::Patch { target, kind, body } => {
                let made = client.patch(&target, kind, body, &write).await?;
                Ok(self.wrote(&target, made))
            }
            Change::Delete { target, options } => match client.delete(&target, &options).await {
                Ok(answer) => {
                    self.deleted(&target, &options, &answer);
                    Ok(answer)
                }
                Err(status) if status.is_not_found() => Ok(Value::Null),
                Err(status) => Err(status),
            },
            Change::Evict { target } => {
                let body = serde_json::json!({"apiVersion": "policy/v1", "kind": "Eviction",
                    "metadata": {"namespace": target.namespace, "name": target.name}});
                client.create(&target.sub("eviction"), body, &write).await
            }
            Change::Event { regarding, kind, reason, message } => {
                self.executor.recorder.event(&regarding, kind, &reason, message);
                Ok(Value::Null)
            }
        }
    }

    /// Applies changes in order; the first error ends it.
    pub async fn apply_all(&self, changes: impl IntoIterator<Item = Change>) -> Result<()> {
        for change in changes {
            self.apply(change).await?;
        }
        Ok(())
    }

    /// Applies independent changes side by side; the answers are in their order.
    pub async fn apply_each(&self, changes: Vec<Change>) -> Vec<Result<Value>> {
        let writes = changes.into_iter().map(|change| self.apply(change));
        futures::stream::iter(writes).buffered(CONCURRENT_WRITES_MAX).collect().await
    }

    /// Applies independent changes in batches of 1, 2, 4, …, and stops after a batch with a
    /// failure: what is refused once is refused often, and need not be asked a thousand times. The
    /// answers are those of the changes that were tried.
    pub async fn slow_start(&self, changes: Vec<Change>) -> Vec<Result<Value>> {
        let mut changes = changes.into_iter();
        let mut answers = Vec::with_capacity(changes.len());
        let mut batch = 1;
        while changes.len() > 0 {
            let writes = changes.by_ref().take(batch).map(|change| self.apply(change));
            let results = join_all(writes.collect::<Vec<_>>()).await;
            let failed = results.iter().any(Result::is_err);
            answers.extend(results);
            if failed {
                break;
            }
            batch = (batch * 2).min(CONCURRENT_WRITES_MAX);
        }
        answers
    }

    /// Records an event.
    pub fn event<T: Object>(&self, object: &T, kind: EventType, reason: &str, message: String) {
        self.executor.recorder.event(&reference_to(object), kind, reason, message);
    }

    /// Waits until the informers have seen all that was written.
    pub async fn settle(&self) {
        let written = std::mem::take(&mut *self.written.lock());
        let wait = async {
            for one in &written {
                match one {
                    Written::Revision(gvr, revision) => {
                        if let Some(informer) = self.executor.informers.following(gvr) {
                            informer.reached(*revision).await;
                        }
                    }
                    Written::Gone(gvr, key, uid) => {
                        if let Some(informer) = self.executor.informers.following(gvr) {
                            informer.gone(key, uid).await;
                        }
                    }
                }
            }
        };
        if tokio::time::timeout(OWN_WRITES_WAIT_MAX, wait).await.is_err() {
            tracing::warn!("informers have not seen own writes for {OWN_WRITES_WAIT_MAX:?}");
        }
    }

    fn wrote(&self, target: &Target, object: Value) -> Value {
        if let Ok(revision) = meta::resource_version(&object).parse() {
            self.written.lock().push(Written::Revision(target.gvr.clone(), revision));
        }
        object
    }

    fn deleted(&self, target: &Target, options: &DeleteOptions, answer: &Value) {
        if options.dry_run {
            return;
        }
        // Either the object, still ending, or a Status that names its uid.
        if let Ok(revision) = meta::resource_version(answer).parse() {
            self.written.lock().push(Written::Revision(target.gvr.clone(), revision));
            return;
        }
        let uid = options.uid.as_deref().unwrap_or(meta::text(answer, &["details", "uid"]));
        let namespace = target.namespace.as_deref().unwrap_or("");
        let key = ObjectKey::new(namespace, target.name.as_str());
        self.written.lock().push(Written::Gone(target.gvr.clone(), key, uid.to_owned()));
    }
}
