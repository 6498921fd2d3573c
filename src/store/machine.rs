//! The replicated state and the pure function that moves it: `apply(&mut State, Command)`.
//!
//! Why pure: two members that read the same log must hold the same bytes, so nothing here reads a
//! clock, a random source or the environment. Why persistent maps: a clone of the whole state costs
//! a few pointers, so what readers see is simply the state as it was after a log entry, and it
//! never changes under them.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::command::Command;
use super::error::Error;
use super::txn::{
    Compare, Entry, Event, EventKind, KeyRange, Keyspace, Op, OpResult, Slot, Txn, TxnReply, splice,
};

/// How many request ids are remembered; an older repeat would be applied again, so a forwarder
/// must give up long before that many other writes.
pub(super) const REQUESTS_KEPT_MAX: usize = 10_000;
/// The revision of an empty keyspace.
pub(super) const FIRST_REVISION: u64 = 1;

/// An event's place in history: its revision, and its number among those of the revision.
pub(super) type Place = (u64, u32);

/// One keyspace.
#[derive(Clone, PartialEq)]
pub(super) struct Space {
    /// The newest revision.
    pub(super) revision: u64,
    /// History up to and including this revision is gone.
    pub(super) compacted: u64,
    /// What exists now.
    pub(super) map: OrdMap<Bytes, Arc<Entry>>,
    /// What happened after `compacted`.
    pub(super) history: OrdMap<Place, Event>,
    /// What history weighs.
    pub(super) history_bytes: usize,
}

/// How a request with an id went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Requested {
    /// Its number among all requests with ids.
    pub(super) order: u64,
    /// Whether its compares held.
    pub(super) succeeded: bool,
    /// The keyspace's revision after it.
    pub(super) revision: u64,
}

/// Everything that the log describes.
#[derive(Clone, PartialEq)]
pub(super) struct State {
    /// The last log entry in it.
    pub(super) index: u64,
    /// That entry's term.
    pub(super) term: u64,
    /// The group's members as of that entry, encoded by the Raft side.
    pub(super) members: Bytes,
    /// The keyspaces, by [`Keyspace::index`].
    pub(super) spaces: [Space; 3],
    /// Requests with ids, so that a repeat is harmless.
    pub(super) requests: OrdMap<u128, Requested>,
    /// The same in the order of their arrival.
    pub(super) requests_by_order: OrdMap<u64, u128>,
}

/// What one command did, for disk, watchers and the proposer.
#[derive(Default)]
pub(super) struct Applied {
    /// One per transaction.
    pub(super) outcomes: Vec<Result<TxnReply, Error>>,
    /// Every change, in order.
    pub(super) events: Vec<(Keyspace, Place, Event)>,
    /// History dropped up to and including these revisions.
    pub(super) compacted: Vec<(Keyspace, u64)>,
    /// Request ids remembered, and forgotten (`None`).
    pub(super) requests: Vec<(u128, Option<Requested>)>,
}

impl Space {
    fn new() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: FIRST_REVISION,
            map: OrdMap::new(),
            history: OrdMap::new(),
            history_bytes: 0,
        }
    }

    pub(super) fn remember(&mut self, place: Place, event: Event) {
        self.history_bytes += event.weight();
        self.history.insert(place, event);
    }

    /// Drops history up to and including `revision`; false if it was gone already.
    fn compact(&mut self, revision: u64) -> bool {
        let revision = revision.min(self.revision);
        if revision <= self.compacted {
            return false;
        }
        self.compacted = revision;
        while let Some((place, event)) = self.history.get_min() {
            if place.0 > revision {
                break;
            }
            self.history_bytes -= event.weight();
            let place = *place;
            self.history.remove(&place);
        }
        true
    }

    /// The keys as they were after `revision`, which history must reach: the newest state with
    /// every later change undone.
    pub(super) fn map_at(&self, revision: u64) -> OrdMap<Bytes, Arc<Entry>> {
        let mut map = self.map.clone();
        for (_, event) in self.history.range((revision + 1, 0)..).rev() {
            match &event.prev {
                Some(prev) => map.insert(prev.key.clone(), prev.clone()),
                None => map.remove(&event.entry.key),
            };
        }
        map
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            index: 0,
            term: 0,
            members: Bytes::new(),
            spaces: [Space::new(), Space::new(), Space::new()],
            requests: OrdMap::new(),
            requests_by_order: OrdMap::new(),
        }
    }
}

impl State {
    pub(super) fn space(&self, keyspace: Keyspace) -> &Space {
        &self.spaces[keyspace.index()]
    }

    pub(super) fn space_mut(&mut self, keyspace: Keyspace) -> &mut Space {
        &mut self.spaces[keyspace.index()]
    }

    fn remember_request(&mut self, id: u128, reply: &TxnReply, applied: &mut Applied) {
        let order = self.requests_by_order.get_max().map_or(0, |(order, _)| order + 1);
        let requested = Requested { order, succeeded: reply.succeeded, revision: reply.revision };
        self.requests.insert(id, requested);
        self.requests_by_order.insert(order, id);
        applied.requests.push((id, Some(requested)));
        if self.requests.len() > REQUESTS_KEPT_MAX
            && let Some((order, oldest)) = self.requests_by_order.get_min().copied()
        {
            self.requests_by_order.remove(&order);
            self.requests.remove(&oldest);
            applied.requests.push((oldest, None));
        }
    }
}

/// Moves the state by one log entry. `None` is an entry that says nothing to the state (a new
/// leader's first one, a change of members).
pub(super) fn apply(
    state: &mut State,
    (index, term): (u64, u64),
    command: Option<Command>,
    applied: &mut Applied,
) {
    (state.index, state.term) = (index, term);
    let Some(command) = command else { return };
    for (keyspace, revision) in command.compact {
        let space = state.space_mut(keyspace);
        if space.compact(revision) {
            let compacted = space.compacted;
            applied.compacted.push((keyspace, compacted));
        }
    }
    for txn in command.txns {
        let outcome = apply_txn(state, term, txn, applied);
        applied.outcomes.push(outcome);
    }
}

fn apply_txn(
    state: &mut State,
    term: u64,
    txn: Txn,
    applied: &mut Applied,
) -> Result<TxnReply, Error> {
    if let Some(expected) = txn.term.filter(|expected| *expected != term) {
        return Err(Error::Fenced { expected, current: term });
    }
    if let Some(known) = txn.request_id.and_then(|id| state.requests.get(&id)) {
        return Ok(TxnReply {
            succeeded: known.succeeded,
            revision: known.revision,
            results: Vec::new(),
            conflicts: Vec::new(),
            repeated: true,
        });
    }
    // The proposer checked this too; here it guards the log of a member with other bounds.
    txn.check().map_err(Error::Invalid)?;
    let space = state.space_mut(txn.keyspace);
    let mut conflicts = Vec::new();
    let mut succeeded = true;
    for compare in &txn.compares {
        succeeded &= holds(space, compare, &mut conflicts);
    }
    let mut run = Run { keyspace: txn.keyspace, base: space.revision, sub: 0, space, applied };
    let branch = if succeeded { txn.success } else { txn.failure };
    let results = branch.into_iter().map(|op| run.op(op)).collect();
    let revision = run.space.revision;
    let reply = TxnReply { succeeded, revision, results, conflicts, repeated: false };
    if let Some(id) = txn.request_id {
        state.remember_request(id, &reply, applied);
    }
    Ok(reply)
}

fn holds(
    space: &Space,
    compare: &Compare,
    conflicts: &mut Vec<(Bytes, Option<Arc<Entry>>)>,
) -> bool {
    let number = |key: &Bytes, of: fn(&Entry) -> u64| space.map.get(key).map_or(0, |e| of(e));
    let (key, good) = match compare {
        Compare::ModRevision { key, equals } => (key, number(key, |e| e.mod_revision) == *equals),
        Compare::CreateRevision { key, equals } => {
            (key, number(key, |e| e.create_revision) == *equals)
        }
        Compare::Version { key, equals } => (key, number(key, |e| e.version) == *equals),
        Compare::Value { key, equals } => {
            (key, space.map.get(key).is_some_and(|entry| entry.value == *equals))
        }
        Compare::RangeEmpty { range } => {
            let Some((key, entry)) = first_in(space, range) else { return true };
            conflicts.push((key.clone(), Some(entry.clone())));
            return false;
        }
    };
    if !good {
        conflicts.push((key.clone(), space.map.get(key).cloned()));
    }
    good
}

fn first_in<'a>(space: &'a Space, range: &KeyRange) -> Option<(&'a Bytes, &'a Arc<Entry>)> {
    if range.is_empty() {
        return None;
    }
    space.map.range::<_, [u8]>(range.bounds()).next()
}

/// One transaction's branch under way.
struct Run<'a> {
    keyspace: Keyspace,
    /// The revision before the transaction.
    base: u64,
    /// Changes so far that share its revision.
    sub: u32,
    space: &'a mut Space,
    applied: &'a mut Applied,
}

impl Run<'_> {
    fn op(&mut self, op: Op) -> OpResult {
        match op {
            Op::Put { key, value, slot, expires_at_ms } => {
                let (entry, prev) = self.put(key, value, slot, expires_at_ms);
                OpResult::Put { entry, prev }
            }
            Op::Delete { key } => OpResult::Delete { prev: self.delete(&key) },
            Op::DeleteRange { range } => {
                let keys: Vec<Bytes> = if range.is_empty() {
                    Vec::new()
                } else {
                    let found = self.space.map.range::<_, [u8]>(range.bounds());
                    found.map(|(key, _)| key.clone()).collect()
                };
                OpResult::DeleteRange {
                    prev: keys.iter().filter_map(|key| self.delete(key)).collect(),
                }
            }
            Op::Get { key } => OpResult::Get { entry: self.space.map.get(&key).cloned() },
        }
    }

    /// The place of the next change.
    fn next_place(&mut self) -> Place {
        if !self.keyspace.one_revision_per_txn() {
            self.space.revision += 1;
            return (self.space.revision, 0);
        }
        self.space.revision = self.base + 1;
        self.sub += 1;
        (self.space.revision, self.sub - 1)
    }

    fn put(
        &mut self,
        key: Bytes,
        value: Bytes,
        slot: Option<u32>,
        expires_at_ms: Option<u64>,
    ) -> (Arc<Entry>, Option<Arc<Entry>>) {
        let place = self.next_place();
        let revision = place.0;
        let (value, slot) = match slot {
            None => (value, None),
            Some(offset) => {
                let (before, after) = value.split_at(offset as usize);
                let (value, digits) = splice(before, after, revision);
                (value, Some(Slot { offset, digits }))
            }
        };
        let prev = self.space.map.get(&key).cloned();
        let entry = Arc::new(Entry {
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            key: key.clone(),
            value,
            slot,
            expires_at_ms,
        });
        self.space.map.insert(key, entry.clone());
        self.record(place, EventKind::Put, entry.clone(), prev.clone());
        (entry, prev)
    }

    fn delete(&mut self, key: &Bytes) -> Option<Arc<Entry>> {
        let prev = self.space.map.remove(key)?;
        let place = self.next_place();
        self.record(place, EventKind::Delete, prev.clone(), Some(prev.clone()));
        Some(prev)
    }

    fn record(
        &mut self,
        place: Place,
        kind: EventKind,
        entry: Arc<Entry>,
        prev: Option<Arc<Entry>>,
    ) {
        let event = Event { revision: place.0, kind, entry, prev };
        self.space.remember(place, event.clone());
        self.applied.events.push((self.keyspace, place, event));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
