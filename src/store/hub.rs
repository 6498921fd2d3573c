//! Watches: each watcher reads the history of the published state behind a cursor of its own.
//!
//! Why no queue per watcher: history is the one bounded buffer, shared by all, so a slow watcher
//! costs nothing but its cursor, and a watcher cannot be skipped: either history still reaches its
//! cursor, or it ends with [`Error::Compacted`] once. The hub only knows whom to wake: watchers of
//! the same range share a group, and a change wakes the groups whose range holds its key.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::Error;
use super::machine::State;
use super::shared::Shared;
use super::txn::{Event, KeyRange, Keyspace};

/// Most events of one batch: the task that sends them yields between batches.
const BATCH_EVENTS_MAX: usize = 1_000;

/// The watchers of one range.
struct Group {
    keyspace: Keyspace,
    range: KeyRange,
    wake: Notify,
    /// The last batch that woke it: once is enough.
    batch: AtomicU64,
}

/// Whom to wake.
#[derive(Default)]
pub(super) struct Hub {
    groups: Mutex<Groups>,
}

#[derive(Default)]
struct Groups {
    /// Prefix ranges, found by cutting a changed key to each length that occurs.
    prefixes: [HashMap<Bytes, Weak<Group>>; 3],
    /// The lengths of all prefixes.
    lengths: BTreeSet<usize>,
    /// Every other range.
    others: Vec<Weak<Group>>,
    /// Batches published so far.
    batch: u64,
    closed: bool,
}

impl Group {
    fn wake(&self, batch: u64) {
        if self.batch.swap(batch, Ordering::Relaxed) != batch {
            self.wake.notify_waiters();
        }
    }
}

impl Hub {
    fn join(&self, keyspace: Keyspace, range: &KeyRange) -> Arc<Group> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.find(keyspace, range) {
            return group;
        }
        groups.sweep();
        let group = Arc::new(Group {
            keyspace,
            range: range.clone(),
            wake: Notify::new(),
            batch: AtomicU64::new(0),
        });
        let member = Arc::downgrade(&group);
        if range.is_prefix() {
            groups.prefixes[keyspace.index()].insert(range.start.clone(), member);
            groups.lengths.insert(range.start.len());
        } else {
            groups.others.push(member);
        }
        group
    }

    /// Wakes the watchers of what changed. The state that holds the events is published before.
    pub(super) fn publish<'a>(&self, events: impl Iterator<Item = (Keyspace, &'a [u8])>) {
        let mut groups = self.groups.lock();
        groups.batch += 1;
        let batch = groups.batch;
        for (keyspace, key) in events {
            let prefixes = &groups.prefixes[keyspace.index()];
            for length in groups.lengths.iter().take_while(|length| **length <= key.len()) {
                if let Some(group) = prefixes.get(&key[..*length]).and_then(Weak::upgrade) {
                    group.wake(batch);
                }
            }
            let others = groups.others.iter().filter_map(Weak::upgrade);
            others
                .filter(|group| group.keyspace == keyspace && group.range.contains(key))
                .for_each(|group| group.wake(batch));
        }
    }

    /// Wakes everyone, for the end or for a state that was replaced as a whole.
    pub(super) fn wake_all(&self, closed: bool) {
        let mut groups = self.groups.lock();
        groups.closed |= closed;
        groups.all().for_each(|group| group.wake.notify_waiters());
    }

    fn is_closed(&self) -> bool {
        self.groups.lock().closed
    }

    /// How many ranges are watched.
    pub(super) fn ranges(&self) -> usize {
        self.groups.lock().all().count()
    }
}

impl Groups {
    fn all(&self) -> impl Iterator<Item = Arc<Group>> {
        let prefixes = self.prefixes.iter().flat_map(HashMap::values);
        prefixes.chain(&self.others).filter_map(Weak::upgrade)
    }

    fn find(&self, keyspace: Keyspace, range: &KeyRange) -> Option<Arc<Group>> {
        if range.is_prefix() {
            return self.prefixes[keyspace.index()].get(&range.start).and_then(Weak::upgrade);
        }
        let mut others = self.others.iter().filter_map(Weak::upgrade);
        others.find(|group| group.keyspace == keyspace && group.range == *range)
    }

    /// Forgets ranges that nobody watches any more.
    fn sweep(&mut self) {
        self.others.retain(|group| group.strong_count() > 0);
        self.prefixes.iter_mut().for_each(|prefixes| {
            prefixes.retain(|_, group| group.strong_count() > 0);
        });
        self.lengths = self.prefixes.iter().flat_map(HashMap::keys).map(Bytes::len).collect();
    }
}

/// The changes of a range, each once and in order.
pub struct Watcher {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// Every change of the range up to and including this revision has been handed out.
    cursor: u64,
    ended: bool,
}

impl Watcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        keyspace: Keyspace,
        range: KeyRange,
        after: u64,
    ) -> Result<Self, Error> {
        let group = shared.hub.join(keyspace, &range);
        let state = shared.state.load();
        let space = state.space(keyspace);
        let cursor = if after == 0 { space.revision } else { after };
        if cursor < space.compacted {
            return Err(Error::Compacted { requested: cursor, oldest: space.compacted });
        }
        drop(state);
        Ok(Self { shared, group, cursor, ended: false })
    }

    /// The next changes, at least one; `None` once the store has stopped or after an error.
    /// Safe to cancel: what was not returned is returned next time.
    pub async fn next(&mut self) -> Option<Result<Vec<Event>, Error>> {
        loop {
            if self.ended {
                return None;
            }
            let group = self.group.clone();
            let woken = group.wake.notified();
            tokio::pin!(woken);
            // Registered before looking, so a change between the look and the wait is not missed.
            woken.as_mut().enable();
            match self.take() {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Some(Ok(events)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            if self.shared.hub.is_closed() {
                self.ended = true;
                return None;
            }
            woken.await;
        }
    }

    /// The changes that are there already, perhaps none; never waits.
    pub fn take(&mut self) -> Result<Vec<Event>, Error> {
        let state = self.shared.state.load_full();
        self.take_from(&state)
    }

    fn take_from(&mut self, state: &State) -> Result<Vec<Event>, Error> {
        let space = state.space(self.group.keyspace);
        if self.cursor < space.compacted {
            return Err(Error::Compacted { requested: self.cursor, oldest: space.compacted });
        }
        let mut events: Vec<Event> = Vec::new();
        if self.cursor >= space.revision {
            return Ok(events);
        }
        for ((revision, _), event) in space.history.range((self.cursor + 1, 0)..) {
            // A batch ends between revisions, never inside one: a transaction is seen whole.
            let full = events.len() >= BATCH_EVENTS_MAX;
            if full && events.last().is_some_and(|last| last.revision < *revision) {
                self.cursor = revision - 1;
                return Ok(events);
            }
            if self.group.range.contains(&event.entry.key) {
                events.push(event.clone());
            }
        }
        self.cursor = space.revision;
        Ok(events)
    }

    /// The revision up to which every change of the range has been handed out: what a bookmark may
    /// say. It moves on over changes of other keys, and stands still while some of this range wait.
    pub fn progress(&mut self) -> u64 {
        let state = self.shared.state.load_full();
        let space = state.space(self.group.keyspace);
        if self.cursor >= space.compacted && self.cursor < space.revision {
            let waiting = space.history.range((self.cursor + 1, 0)..);
            let mut waiting =
                waiting.filter(|(_, event)| self.group.range.contains(&event.entry.key));
            self.cursor = match waiting.next() {
                Some(((revision, _), _)) => revision - 1,
                None => space.revision,
            };
        }
        self.cursor
    }
}
