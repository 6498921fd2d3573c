//! The store as the API server sees it: objects below keys, fresh or cached views, one commit.
//!
//! Why one file: nothing else of the API server but the watch handler touches the store, its errors
//! become Statuses here, and the revision slot is cut here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::storage::{Companion, CompanionChange, Lookup};
use crate::object::status::{Cause, Details, Result, Status};
use crate::object::{Map, Value, meta};
use crate::stdx::limits::OBJECT_BYTES_MAX;
use crate::store::{
    Compare, Entry, Error, Event, KeyRange, Keyspace, Op, OpResult, Store, Txn, View, Watcher,
};

/// Objects live in this keyspace.
const SPACE: Keyspace = Keyspace::Kubernetes;
/// How long a read waits for a revision that is not here yet; then it is a 504.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// The objects. Clones share them.
#[derive(Clone)]
pub struct Data {
    store: Store,
}

/// One moment of the objects, as strategies and plug-ins may look at it.
pub struct Moment(pub View);

impl Lookup for Moment {
    fn get(&self, key: &[u8]) -> Option<(Bytes, u64)> {
        self.0.get(key).map(|entry| (entry.value.clone(), entry.mod_revision))
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&Bytes, &Bytes) -> bool) {
        let range = KeyRange::prefix(prefix.to_vec());
        for entry in self.0.range(&range, None) {
            if !each(&entry.key, &entry.value) {
                return;
            }
        }
    }
}

/// One object's write, with what else must be written.
pub struct Change<'a> {
    /// The object's key.
    pub key: &'a Bytes,
    /// The revision that it must have; 0: it must not exist.
    pub expected: u64,
    /// What is stored; `None`: the key is removed.
    pub value: Option<&'a Value>,
    /// When it expires, in milliseconds of wall time.
    pub expires_at_ms: Option<u64>,
    /// Other keys.
    pub companions: Vec<Companion>,
}

/// How a commit ended.
pub enum Outcome {
    /// The object is stored: its applied bytes.
    Stored(Arc<Entry>),
    /// The object is gone; the revision of its end.
    Removed(u64),
    /// Another write of the object came first; what is there now.
    Conflict(Option<Arc<Entry>>),
    /// Another write of a companion came first.
    Taken,
}

impl Data {
    /// The objects of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store itself, for what `roles` and health checks ask.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The state here and now; it may lag behind other members.
    pub fn cached(&self) -> View {
        self.store.view(SPACE)
    }

    /// A state that shows every write that was acknowledged before this call.
    pub async fn fresh(&self) -> Result<View> {
        self.store.linearizable_view(SPACE).await.map_err(failure)
    }

    /// A state at least as new as `revision`.
    pub async fn not_older_than(&self, revision: u64) -> Result<View> {
        let view = self.cached();
        if view.revision() >= revision {
            return Ok(view);
        }
        self.store.wait_applied(SPACE, revision, FUTURE_WAIT).await.map_err(failure)?;
        Ok(self.cached())
    }

    /// The state at exactly `revision`.
    pub async fn at(&self, revision: u64) -> Result<View> {
        self.not_older_than(revision).await?;
        self.store.view_at(SPACE, revision).map_err(failure)
    }

    /// Follows `range` from behind `after`.
    pub fn watch(&self, range: KeyRange, after: u64) -> Result<Watcher> {
        self.store.watch(SPACE, range, after).map_err(failure)
    }

    /// Makes one change.
    pub async fn commit(&self, change: Change<'_>) -> Result<Outcome> {
        let mut txn = Txn::new(SPACE)
            .when(Compare::ModRevision { key: change.key.clone(), equals: change.expected });
        txn = match change.value {
            None => txn.then(Op::delete(change.key.clone())),
            Some(value) => {
                let (value, slot) = encode(value);
                if value.len() > OBJECT_BYTES_MAX {
                    return Err(Status::too_large(format!(
                        "Request entity too large: limit is {OBJECT_BYTES_MAX}"
                    )));
                }
                let key = change.key.clone();
                txn.then(Op::Put { key, value, slot, expires_at_ms: change.expires_at_ms })
            }
        };
        for one in change.companions {
            txn.compares.push(Compare::ModRevision { key: one.key.clone(), equals: one.expected });
            match one.change {
                CompanionChange::Keep => {}
                CompanionChange::Delete => txn.success.push(Op::delete(one.key)),
                CompanionChange::Put(value) => {
                    let (value, slot) = encode(&value);
                    let put = Op::Put { key: one.key, value, slot, expires_at_ms: None };
                    txn.success.push(put);
                }
            }
        }
        let reply = self.store.txn(txn).await.map_err(failure)?;
        if !reply.succeeded {
            let mut conflicts = reply.conflicts.into_iter();
            return Ok(match conflicts.find(|(key, _)| key == change.key) {
                Some((_, entry)) => Outcome::Conflict(entry),
                None => Outcome::Taken,
            });
        }
        Ok(match reply.results.into_iter().next() {
            Some(OpResult::Put { entry, .. }) => Outcome::Stored(entry),
            _ => Outcome::Removed(reply.revision),
        })
    }
}

/// A value as stored bytes, and where apply splices the revision's digits in: the (empty) text of
/// `metadata.resourceVersion`. A value without metadata has no such place.
pub fn encode(value: &Value) -> (Bytes, Option<u32>) {
    let mut out = Vec::with_capacity(1024);
    let (Some(object), Some(metadata)) =
        (value.as_object(), value.get("metadata").and_then(Value::as_object))
    else {
        return (super::body::to_bytes(value).into(), None);
    };
    let mut slot = None;
    out.push(b'{');
    let mut written = 0;
    for (name, field) in object {
        if name == "metadata" {
            name_into(&mut out, name, &mut written);
            slot = Some(encode_metadata(&mut out, metadata));
        } else {
            name_into(&mut out, name, &mut written);
            out.extend_from_slice(&super::body::to_bytes(field));
        }
    }
    out.push(b'}');
    (out.into(), slot)
}

fn encode_metadata(out: &mut Vec<u8>, metadata: &Map) -> u32 {
    const VERSION: &str = "resourceVersion";
    let mut slot = None;
    let mut written = 0;
    out.push(b'{');
    let version = |out: &mut Vec<u8>, written: &mut usize| {
        name_into(out, VERSION, written);
        out.push(b'"');
        let at = out.len();
        out.push(b'"');
        at
    };
    for (name, field) in metadata {
        if slot.is_none() && name.as_str() >= VERSION {
            slot = Some(version(out, &mut written));
        }
        if name != VERSION && name != "selfLink" {
            name_into(out, name, &mut written);
            out.extend_from_slice(&super::body::to_bytes(field));
        }
    }
    let slot = slot.unwrap_or_else(|| version(out, &mut written));
    out.push(b'}');
    slot as u32
}

fn name_into(out: &mut Vec<u8>, name: &str, written: &mut usize) {
    if *written > 0 {
        out.push(b',');
    }
    *written += 1;
    out.extend_from_slice(&super::body::to_bytes(&Value::from(name)));
    out.push(b':');
}

/// Reads stored bytes.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(Status::internal)
}

/// The value of an entry, its `resourceVersion` included.
pub fn value_of(entry: &Entry) -> Result<Value> {
    let mut value = decode(&entry.value)?;
    if entry.slot.is_some() {
        meta::set(&mut value, &["metadata", "resourceVersion"], entry.mod_revision.to_string());
    }
    Ok(value)
}

/// The last bytes of a key that an event deleted or replaced, at the event's revision.
pub fn last_bytes(event: &Event, entry: &Entry) -> Bytes {
    entry.value_at_revision(event.revision)
}

/// A store's error as a Status.
pub fn failure(error: Error) -> Status {
    match error {
        Error::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        Error::Future { requested, current } => too_new(requested, current),
        Error::Timeout | Error::Unknown => {
            let mut status = Status::timeout(format!("the request timed out: {error}"));
            status.details =
                Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
            status
        }
        Error::NotLeader { .. } | Error::Closed | Error::Fenced { .. } => {
            Status::unavailable(error.to_string())
        }
        Error::DiskFull { .. } => {
            let mut status = Status::failure(507, "InsufficientStorage", error.to_string());
            status.details = Some(Box::default());
            status
        }
        Error::Invalid(text) => Status::bad_request(text),
        other => Status::internal(other),
    }
}

/// 504: the client knows a revision that is not here yet.
fn too_new(requested: u64, current: u64) -> Status {
    let text = format!("Too large resource version: {requested}, current: {current}");
    let mut status = Status::timeout(format!("Timeout: {text}"));
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    status.details = Some(Box::new(details));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_slot_is_the_place_of_the_resource_version() {
        for metadata in [
            json!({"name": "a", "resourceVersion": "7", "uid": "u"}),
            json!({"name": "a", "resourceVersion": "7"}),
            json!({"uid": "u"}),
            json!({}),
        ] {
            let value = json!({"kind": "X", "metadata": metadata, "spec": {"a": [1, "ü"]}});
            let (bytes, slot) = encode(&value);
            let slot = slot.unwrap() as usize;
            let spliced = [&bytes[..slot], b"42", &bytes[slot..]].concat();
            let mut want = value;
            meta::set(&mut want, &["metadata", "resourceVersion"], "42");
            assert_eq!(decode(&spliced).unwrap(), want);
            assert_eq!(spliced, super::super::body::to_bytes(&want), "canonical");
        }
        assert_eq!(encode(&json!({"a": 1})).1, None);
    }
}
