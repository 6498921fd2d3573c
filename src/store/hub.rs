//! Watches: each watcher reads the history of the published state behind a cursor of its own.
//!
//! Why no queue per watcher: history is the one bounded buffer, shared by all, so a slow watcher
//! costs nothing but its cursor, and a watcher cannot be skipped: either history still reaches its
//! cursor, or it ends with [`Error::Compacted`] once. The hub only knows whom to wake: watchers of
//! the same range share a group, and a change wakes the groups whose range holds its key.

use std::collections::{BTreeMap, HashMap};
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
}

/// Whom to wake.
#[derive(Default)]
pub(super) struct Hub {
    groups: Mutex<Groups>,
}

#[derive(Default)]
struct Groups {
    /// Prefix ranges, found by cutting a changed key to each length that occurs.
    prefixes: HashMap<(Keyspace, Bytes), Weak<Group>>,
    /// How many prefixes have each length.
    lengths: BTreeMap<usize, usize>,
    /// Every other range.
    others: Vec<Weak<Group>>,
    closed: bool,
}

impl Hub {
    fn join(&self, keyspace: Keyspace, range: &KeyRange) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let new = || Arc::new(Group { keyspace, range: range.clone(), wake: Notify::new() });
        if KeyRange::prefix(range.start.clone()) != *range {
            let found = groups.others.iter().filter_map(Weak::upgrade);
            let mut found =
                found.filter(|group| group.keyspace == keyspace && group.range == *range);
            if let Some(group) = found.next() {
                return group;
            }
            drop(found);
            let group = new();
            groups.others.retain(|group| group.strong_count() > 0);
            groups.others.push(Arc::downgrade(&group));
            return group;
        }
        let key = (keyspace, range.start.clone());
        if let Some(group) = groups.prefixes.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        groups.sweep();
        let group = new();
        if groups.prefixes.insert(key, Arc::downgrade(&group)).is_none() {
            *groups.lengths.entry(range.start.len()).or_default() += 1;
        }
        group
    }

    /// Wakes the watchers of what changed. The state that holds the events is published before.
    pub(super) fn publish<'a>(&self, events: impl Iterator<Item = (Keyspace, &'a [u8])>) {
        let groups = self.groups.lock();
        if groups.prefixes.is_empty() && groups.others.is_empty() {
            return;
        }
        let mut woken: Vec<Arc<Group>> = Vec::new();
        let mut wake = |group: Arc<Group>| {
            if !woken.iter().any(|other| Arc::ptr_eq(other, &group)) {
                group.wake.notify_waiters();
                woken.push(group);
            }
        };
        for (keyspace, key) in events {
            for length in groups.lengths.keys().take_while(|length| **length <= key.len()) {
                let prefix = (keyspace, Bytes::copy_from_slice(&key[..*length]));
                if let Some(group) = groups.prefixes.get(&prefix).and_then(Weak::upgrade) {
                    wake(group);
                }
            }
            let others = groups.others.iter().filter_map(Weak::upgrade);
            others
                .filter(|group| group.keyspace == keyspace && group.range.contains(key))
                .for_each(&mut wake);
        }
    }

    /// Wakes everyone, for the end or for a state that was replaced as a whole.
    pub(super) fn wake_all(&self, closed: bool) {
        let mut groups = self.groups.lock();
        groups.closed |= closed;
        let all = groups.prefixes.values().chain(&groups.others);
        all.filter_map(Weak::upgrade).for_each(|group| group.wake.notify_waiters());
    }

    fn is_closed(&self) -> bool {
        self.groups.lock().closed
    }

    /// How many ranges are watched.
    pub(super) fn ranges(&self) -> usize {
        let groups = self.groups.lock();
        let all = groups.prefixes.values().chain(&groups.others);
        all.filter(|group| group.strong_count() > 0).count()
    }
}

impl Groups {
    fn sweep(&mut self) {
        let lengths = &mut self.lengths;
        self.prefixes.retain(|(_, prefix), group| {
            let live = group.strong_count() > 0;
            if !live && let Some(count) = lengths.get_mut(&prefix.len()) {
                *count -= 1;
            }
            live
        });
        lengths.retain(|_, count| *count > 0);
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
