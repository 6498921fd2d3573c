//! What the store's threads and its handles share: the published state and who waits for what.
//!
//! Why so little: readers load one pointer; writers leave a one-shot sender. No lock is held while
//! the disk works.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};

use super::error::Error;
use super::hub::Hub;
use super::machine::{Space, State};
use super::txn::{Event, EventKind, Keyspace, TxnReply};
use super::view::View;

/// Old revisions kept put together.
const OLD_VIEWS_MAX: usize = 4;

/// Who leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader_id: Option<u64>,
    /// The current term: what a leader-only writer puts into [`super::Txn::term`].
    pub term: u64,
    /// This member leads and has applied everything that earlier leaders committed.
    pub is_self: bool,
}

/// Figures for metrics and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// The last applied log entry.
    pub applied_index: u64,
    /// The last log entry whose effects are flushed with the state.
    pub flushed_index: u64,
    /// The first entry that the log still holds.
    pub log_first_index: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Syncs of the log so far.
    pub syncs: u64,
    /// Transactions applied so far (since start).
    pub txns: u64,
    /// Keys of all keyspaces.
    pub keys: u64,
    /// Events in the history of all keyspaces.
    pub history_events: u64,
    /// What history weighs.
    pub history_bytes: u64,
    /// Ranges that are watched.
    pub watched_ranges: u64,
    /// Memory that RocksDB holds for unflushed rows and blocks.
    pub disk_memory_bytes: u64,
    /// Writes are refused because the disk is nearly full.
    pub disk_full: bool,
}

/// Who waits for a transaction.
pub(super) struct Waiter {
    pub(super) reply: oneshot::Sender<Result<TxnReply, Error>>,
    /// Its share of the bytes under way; given back with the reply.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What all parts share.
pub(super) struct Shared {
    /// Tells this run's proposals from those of an earlier one or another member.
    pub(super) session: u64,
    pub(super) cluster_id: String,
    pub(super) state: ArcSwap<State>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) hub: Hub,
    /// By the number of the group that carries them.
    pub(super) waiting: Mutex<HashMap<u64, Vec<Waiter>>>,
    pub(super) expiry: Expiry,
    /// This member is the only voter and leads: its applied state is linearizable as it stands.
    pub(super) sole_voter: AtomicBool,
    pub(super) counters: Counters,
    /// The last old revisions that were put together: a paged list asks for the same one often.
    old_views: Mutex<VecDeque<(Keyspace, View)>>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) flushed_index: AtomicU64,
    pub(super) log_first_index: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) txns: AtomicU64,
    pub(super) disk_memory_bytes: AtomicU64,
    pub(super) disk_full: AtomicBool,
}

impl Shared {
    pub(super) fn new(session: u64, cluster_id: String, state: State) -> Self {
        let expiry = Expiry::default();
        expiry.load(&state);
        Self {
            session,
            cluster_id,
            applied: watch::Sender::new(state.index),
            state: ArcSwap::from_pointee(state),
            leadership: watch::Sender::new(Leadership::default()),
            hub: Hub::default(),
            waiting: Mutex::new(HashMap::new()),
            expiry,
            sole_voter: AtomicBool::new(false),
            counters: Counters::default(),
            old_views: Mutex::new(VecDeque::new()),
        }
    }

    /// Answers everyone who waits for a transaction with an error.
    pub(super) fn fail_waiting(&self, error: &Error) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waiter in waiting.into_values().flatten() {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The keyspace at an old revision that history reaches.
    pub(super) fn old_view(&self, keyspace: Keyspace, space: &Space, revision: u64) -> View {
        let known = |kept: &&(Keyspace, View)| kept.0 == keyspace && kept.1.revision == revision;
        if let Some((_, view)) = self.old_views.lock().iter().find(known) {
            return view.clone();
        }
        let view = View { revision, map: space.map_at(revision) };
        let mut kept = self.old_views.lock();
        kept.truncate(OLD_VIEWS_MAX - 1);
        kept.push_front((keyspace, view.clone()));
        view
    }

    /// History was dropped: what it kept alive goes too.
    pub(super) fn forget_old_views(&self) {
        self.old_views.lock().clear();
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.state.load();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |of: fn(&Space) -> usize| state.spaces.iter().map(of).sum::<usize>() as u64;
        Stats {
            applied_index: state.index,
            flushed_index: load(&self.counters.flushed_index),
            log_first_index: load(&self.counters.log_first_index),
            log_bytes: load(&self.counters.log_bytes),
            syncs: load(&self.counters.syncs),
            txns: load(&self.counters.txns),
            keys: sum(|space| space.map.len()),
            history_events: sum(|space| space.history.len()),
            history_bytes: sum(|space| space.history_bytes),
            watched_ranges: self.hub.ranges() as u64,
            disk_memory_bytes: load(&self.counters.disk_memory_bytes),
            disk_full: self.counters.disk_full.load(Ordering::Relaxed),
        }
    }
}

/// Keys that expire, soonest first.
#[derive(Default)]
pub(super) struct Expiry {
    due: Mutex<BTreeSet<(u64, Keyspace, Bytes)>>,
    /// Told when something is added that may be sooner than all else.
    pub(super) sooner: Notify,
}

impl Expiry {
    /// Starts again from a whole state.
    pub(super) fn load(&self, state: &State) {
        let mut due = self.due.lock();
        due.clear();
        for keyspace in Keyspace::ALL {
            let entries = state.space(keyspace).map.values();
            due.extend(entries.filter_map(|entry| {
                entry.expires_at_ms.map(|at| (at, keyspace, entry.key.clone()))
            }));
        }
        drop(due);
        self.sooner.notify_one();
    }

    /// Follows a change.
    pub(super) fn follow(&self, keyspace: Keyspace, event: &Event) {
        let before = event.prev.as_ref().and_then(|prev| prev.expires_at_ms);
        let put = event.kind == EventKind::Put;
        let after = if put { event.entry.expires_at_ms } else { None };
        if before == after {
            return;
        }
        let mut due = self.due.lock();
        if let Some(at) = before {
            due.remove(&(at, keyspace, event.entry.key.clone()));
        }
        if let Some(at) = after {
            let sooner = due.first().is_none_or(|first| at < first.0);
            due.insert((at, keyspace, event.entry.key.clone()));
            drop(due);
            if sooner {
                self.sooner.notify_one();
            }
        }
    }

    /// When the next key expires.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.lock().first().map(|first| first.0)
    }

    /// Up to `most` keys that are due at `now`.
    pub(super) fn due(&self, now: u64, most: usize) -> Vec<(Keyspace, Bytes)> {
        let due = self.due.lock();
        let found = due.iter().take_while(|(at, ..)| *at <= now).take(most);
        found.map(|(_, keyspace, key)| (*keyspace, key.clone())).collect()
    }
}
