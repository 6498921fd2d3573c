//! The vocabulary of the store: keyspaces, keys, entries, transactions, events.
//!
//! Why so small: the store knows bytes and revisions only. A Kubernetes update, a lease and an
//! etcd client's transaction are all "if these hold, do that, else do this".

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::stdx::limits::OBJECT_BYTES_MAX;

/// Independent counters and rules; the first byte of each key on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Keyspace {
    /// API objects: each changed key takes a revision of its own.
    Kubernetes = 1,
    /// The etcd endpoint: one revision per changing transaction.
    Etcd = 2,
    /// clusterd's own bookkeeping: each changed key takes a revision of its own.
    Internal = 3,
}

impl Keyspace {
    /// All of them, in the order of their bytes.
    pub const ALL: [Keyspace; 3] = [Keyspace::Kubernetes, Keyspace::Etcd, Keyspace::Internal];

    /// Its byte on disk.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The keyspace of a byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|keyspace| keyspace.byte() == byte)
    }

    pub(super) fn index(self) -> usize {
        self as usize - 1
    }

    /// Whether the operations of one transaction share a revision.
    pub(super) fn one_revision_per_txn(self) -> bool {
        self == Keyspace::Etcd
    }
}

/// Keys from `start` up to, not including, `end`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key after it; `None`: no end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// From `start` to before `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start, end: Some(end.into()) };
            }
        }
        Self { start, end: None }
    }

    /// Whether it is everything that begins with `start`.
    pub(super) fn is_prefix(&self) -> bool {
        Self::prefix(self.start.clone()).end == self.end
    }

    /// Whether `key` lies within.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether no key can lie within.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        (Bound::Included(&self.start[..]), end)
    }
}

/// What must hold for a transaction's `success` branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was last changed at this revision; 0: it is absent.
    ModRevision {
        /// The key.
        key: Bytes,
        /// The revision.
        equals: u64,
    },
    /// The key was created at this revision; 0: it is absent.
    CreateRevision {
        /// The key.
        key: Bytes,
        /// The revision.
        equals: u64,
    },
    /// The key was written this many times since it was created; 0: it is absent.
    Version {
        /// The key.
        key: Bytes,
        /// How many times.
        equals: u64,
    },
    /// The key exists and holds exactly these bytes.
    Value {
        /// The key.
        key: Bytes,
        /// The bytes.
        equals: Bytes,
    },
    /// No key of the range exists.
    RangeEmpty {
        /// The range.
        range: KeyRange,
    },
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// Offset in the value where apply inserts the decimal digits of the new revision.
        slot: Option<u32>,
        /// Wall time in milliseconds at which the leader proposes the key's deletion.
        expires_at_ms: Option<u64>,
    },
    /// Deletes a key; an absent one is no change.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Deletes every key of a range.
    DeleteRange {
        /// The range.
        range: KeyRange,
    },
    /// Reads a key as it is at this point of the transaction.
    Get {
        /// The key.
        key: Bytes,
    },
}

/// An atomic "if all compares hold then `success` else `failure`" on one keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    /// Where.
    pub keyspace: Keyspace,
    /// Fence: apply refuses it in any other term. Leader-only writers set it.
    pub term: Option<u64>,
    /// Makes a repeat harmless: a second transaction with this id changes nothing and answers
    /// with the first one's outcome (`repeated`). Forwarders set it.
    pub request_id: Option<u128>,
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What happens if it does.
    pub success: Vec<Op>,
    /// What happens if not.
    pub failure: Vec<Op>,
}

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 16 * 1024;
/// Most compares and operations of one transaction.
pub const TXN_OPERATIONS_MAX: usize = 10_000;
/// Largest transaction in bytes: some objects of the largest size.
pub const TXN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest value in bytes: the largest object and what the server adds to it.
pub const VALUE_BYTES_MAX: usize = OBJECT_BYTES_MAX + 64 * 1024;

impl Txn {
    /// A transaction without fence and id that does nothing yet.
    pub fn new(keyspace: Keyspace) -> Self {
        Self {
            keyspace,
            term: None,
            request_id: None,
            compares: Vec::new(),
            success: Vec::new(),
            failure: Vec::new(),
        }
    }

    /// Adds a compare.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation to the success branch.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.success.push(op);
        self
    }

    /// Adds an operation to the failure branch.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.failure.push(op);
        self
    }

    /// Fences it to a term.
    #[must_use]
    pub fn in_term(mut self, term: u64) -> Self {
        self.term = Some(term);
        self
    }

    /// Whether it can only remove: such transactions pass when the disk is nearly full.
    pub(super) fn only_deletes(&self) -> bool {
        let mut ops = self.success.iter().chain(&self.failure);
        ops.all(|op| !matches!(op, Op::Put { .. }))
    }

    /// Refuses what breaks a bound, so that apply cannot fail halfway.
    pub(super) fn check(&self) -> Result<(), String> {
        let operations = self.compares.len() + self.success.len() + self.failure.len();
        if operations > TXN_OPERATIONS_MAX {
            return Err(format!("{operations} operations, at most {TXN_OPERATIONS_MAX}"));
        }
        self.success.iter().chain(&self.failure).try_for_each(Op::check)?;
        self.compares.iter().filter_map(Compare::key).try_for_each(check_key)
    }
}

fn check_key(key: &Bytes) -> Result<(), String> {
    match key.len() {
        0 => Err("empty key".to_owned()),
        length if length > KEY_BYTES_MAX => Err(format!("key of {length} bytes")),
        _ => Ok(()),
    }
}

impl Compare {
    fn key(&self) -> Option<&Bytes> {
        match self {
            Compare::ModRevision { key, .. }
            | Compare::CreateRevision { key, .. }
            | Compare::Version { key, .. }
            | Compare::Value { key, .. } => Some(key),
            Compare::RangeEmpty { .. } => None,
        }
    }
}

impl Op {
    /// A plain put.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put { key: key.into(), value: value.into(), slot: None, expires_at_ms: None }
    }

    /// A delete.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Op::Delete { key: key.into() }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Op::Put { key, value, slot, .. } => {
                check_key(key)?;
                if value.len() > VALUE_BYTES_MAX {
                    return Err(format!("value of {} bytes", value.len()));
                }
                match slot {
                    Some(slot) if *slot as usize > value.len() => {
                        Err(format!("slot {slot} outside a value of {} bytes", value.len()))
                    }
                    _ => Ok(()),
                }
            }
            Op::Delete { key } | Op::Get { key } => check_key(key),
            Op::DeleteRange { .. } => Ok(()),
        }
    }
}

/// Where the revision's digits stand in a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    /// Offset of the first digit.
    pub offset: u32,
    /// How many digits.
    pub digits: u8,
}

/// A key's state at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value, its revision's digits spliced in where a slot was asked for.
    pub value: Bytes,
    /// Where those digits stand.
    pub slot: Option<Slot>,
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that wrote this state.
    pub mod_revision: u64,
    /// How many writes since creation, this one included.
    pub version: u64,
    /// When the leader will propose its deletion (wall time, milliseconds).
    pub expires_at_ms: Option<u64>,
}

impl Entry {
    /// The same bytes with another revision in the slot: what a DELETED event shows is the last
    /// state with the deletion's revision. Without a slot the value itself.
    pub fn value_at_revision(&self, revision: u64) -> Bytes {
        let Some(slot) = self.slot else { return self.value.clone() };
        let start = slot.offset as usize;
        splice(&self.value[..start], &self.value[start + slot.digits as usize..], revision).0
    }

    /// Its size for the bounds of history.
    pub(super) fn weight(&self) -> usize {
        self.key.len() + self.value.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// What an entry costs beside its bytes: two shared buffers, the struct, its place in the map.
const ENTRY_OVERHEAD_BYTES: usize = 200;

/// `before`, the digits of `revision`, `after` in one buffer, and how many digits it took.
pub(super) fn splice(before: &[u8], after: &[u8], revision: u64) -> (Bytes, u8) {
    let digits = revision.to_string();
    let mut value = Vec::with_capacity(before.len() + digits.len() + after.len());
    value.extend_from_slice(before);
    value.extend_from_slice(digits.as_bytes());
    value.extend_from_slice(after);
    (value.into(), digits.len() as u8)
}

/// What one operation did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult {
    /// A put: the new state and the one before.
    Put {
        /// The new state.
        entry: Arc<Entry>,
        /// The state before.
        prev: Option<Arc<Entry>>,
    },
    /// A delete: what was there.
    Delete {
        /// What was there.
        prev: Option<Arc<Entry>>,
    },
    /// A range delete: what was there, in key order.
    DeleteRange {
        /// What was there.
        prev: Vec<Arc<Entry>>,
    },
    /// A read.
    Get {
        /// What is there.
        entry: Option<Arc<Entry>>,
    },
}

/// The answer to a transaction that was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnReply {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The keyspace's revision after it.
    pub revision: u64,
    /// One result per operation of the branch taken (none when `repeated`).
    pub results: Vec<OpResult>,
    /// The keys whose compares failed, with what they hold.
    pub conflicts: Vec<(Bytes, Option<Arc<Entry>>)>,
    /// The transaction's id had been applied before: this is the first one's outcome.
    pub repeated: bool,
}

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The change's revision.
    pub revision: u64,
    /// What happened.
    pub kind: EventKind,
    /// After a put the new state; of a deletion the last one (see [`Entry::value_at_revision`]).
    pub entry: Arc<Entry>,
    /// The state before; `None` when the key was created.
    pub prev: Option<Arc<Entry>>,
}

impl Event {
    /// What it costs to keep, for the history's bound: the new state is usually shared with the
    /// state, but once replaced it lives only here.
    pub(super) fn weight(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.prev.as_ref().map_or(0, |prev| prev.weight())
    }
}
