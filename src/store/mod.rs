//! A replicated, revisioned key-value store with watches: bytes and revisions only.
//!
//! # Purpose
//!
//! The applied Raft state *is* the watch cache and its bytes *are* the response, so the process
//! holds each object once. A write goes [`Store::txn`] -> Raft thread (`raft::node`: one batch,
//! one sync) -> apply thread (`apply`: `machine::apply`, publish, reply, rows to disk). A read
//! loads one pointer ([`View`]). A watch reads history behind a cursor ([`Watcher`]).
//!
//! | file | what it holds |
//! |---|---|
//! | `txn` | the vocabulary: keyspaces, entries, transactions, events |
//! | `machine` | the replicated state and the pure function that moves it |
//! | `command`, `rows`, `codec` | what log entries, disk and snapshots look like in bytes |
//! | `view`, `hub` | reading and watching the published state |
//! | `raft`, `apply`, `shared` | the two threads and what they share with the handles |
//! | `disk`, `space`, `retention` | RocksDB, the free-space watermark, how long history stays |
//!
//! # What failures do
//!
//! - kill -9, power cut: every acknowledged write is in the synced log; the next start reads the
//!   flushed state and applies the log behind it. Watches resume, history is there too.
//! - a failed write or sync ends the process through [`Tasks::fail`]; it is never retried.
//! - disk nearly full: writes are refused with [`Error::DiskFull`] (deletes pass), reads go on.
//! - a torn end of the log is forgotten (it was never acknowledged); a flipped bit anywhere is
//!   [`Error::Corrupt`] and the store does not start.
//! - leadership lost: what was under way answers [`Error::Unknown`].
//!
//! # Limits
//!
//! Those of a transaction stand in `txn`, the rest in [`Config`]. History is the only buffer
//! behind watches: one that falls behind its end gets [`Error::Compacted`].

mod apply;
mod codec;
mod command;
mod config;
mod disk;
mod error;
mod expire;
mod hub;
mod machine;
mod raft;
mod retention;
mod rows;
mod shared;
mod space;
mod start;
mod txn;
mod view;

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};

use crate::stdx::tasks::Tasks;

pub use config::Config;
pub use error::Error;
pub use hub::Watcher;
pub use shared::{Leadership, Stats};
pub use txn::{
    Compare, Entry, Event, EventKind, KEY_BYTES_MAX, KeyRange, Keyspace, Op, OpResult, Slot,
    TXN_BYTES_MAX, TXN_OPERATIONS_MAX, Txn, TxnReply, VALUE_BYTES_MAX,
};
pub use view::View;

pub use raft::Transport;
use raft::{Input, Proposal};
use shared::{Shared, Waiter};

/// Bytes that one permit of the proposal budget stands for.
const PERMIT_BYTES: usize = 1024;

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    inputs: Sender<Input>,
    budget: Arc<Semaphore>,
    budget_max: u32,
    read_timeout: Duration,
    txn_timeout: Duration,
}

impl Store {
    /// Opens the directory and recovers; a group of one has elected itself when this returns. The
    /// store's threads and tasks live under `tasks` and stop with it.
    pub async fn open(config: Config, tasks: &Tasks) -> Result<Store, Error> {
        let permits = (config.proposals_bytes_max / PERMIT_BYTES).max(1);
        let (read_timeout, txn_timeout) = (config.read_timeout, config.txn_timeout);
        let clock = config.clock.clone();
        let (shared, inputs) = start::start(config, tasks).await?;
        let budget = Arc::new(Semaphore::new(permits));
        let budget_max = u32::try_from(permits).unwrap_or(u32::MAX);
        let store = Store { shared, inputs, budget, budget_max, read_timeout, txn_timeout };
        expire::spawn(&store, clock, tasks);
        Ok(store)
    }

    /// The cluster that the directory belongs to.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Applies a transaction: it is committed and on disk when this returns. After
    /// [`Error::Unknown`] and [`Error::Timeout`] it may have happened; after any other error it has
    /// not.
    pub async fn txn(&self, txn: Txn) -> Result<TxnReply, Error> {
        txn.check().map_err(Error::Invalid)?;
        let bytes = command::encode_txn(&txn);
        if bytes.len() > TXN_BYTES_MAX {
            return Err(Error::Invalid(format!("transaction of {} bytes", bytes.len())));
        }
        let permits = ((bytes.len() / PERMIT_BYTES) as u32 + 1).min(self.budget_max);
        let deadline = tokio::time::Instant::now() + self.txn_timeout;
        let permit = self.budget.clone().acquire_many_owned(permits);
        let permit = match tokio::time::timeout_at(deadline, permit).await {
            Ok(permit) => permit.map_err(|_| Error::Closed)?,
            Err(_) => return Err(Error::Timeout),
        };
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter { reply, _permit: permit };
        let only_deletes = txn.only_deletes();
        let proposal = Proposal { bytes, only_deletes, waiter };
        self.inputs.send(Input::Propose(proposal)).map_err(|_| Error::Closed)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Timeout),
        }
    }

    /// What this member has applied, as of now: never waits. It may lag behind the leader.
    pub fn view(&self, keyspace: Keyspace) -> View {
        let state = self.shared.state.load();
        let space = state.space(keyspace);
        View { revision: space.revision, map: space.map.clone() }
    }

    /// A view that holds every write acknowledged anywhere before the call.
    pub async fn linearizable_view(&self, keyspace: Keyspace) -> Result<View, Error> {
        // Every write is acknowledged here, after it was published here.
        if self.shared.sole_voter.load(Ordering::SeqCst) {
            return Ok(self.view(keyspace));
        }
        let read = async {
            let (reply, answer) = oneshot::channel();
            self.inputs.send(Input::Read(reply)).map_err(|_| Error::Closed)?;
            let index = answer.await.map_err(|_| Error::Closed)??;
            let mut applied = self.shared.applied.subscribe();
            applied.wait_for(|applied| *applied >= index).await.map_err(|_| Error::Closed)?;
            Ok(self.view(keyspace))
        };
        tokio::time::timeout(self.read_timeout, read).await.unwrap_or(Err(Error::Timeout))
    }

    /// The keyspace as it was after `revision`, as far as history reaches.
    pub fn view_at(&self, keyspace: Keyspace, revision: u64) -> Result<View, Error> {
        let state = self.shared.state.load_full();
        let space = state.space(keyspace);
        let requested = revision;
        if requested > space.revision {
            return Err(Error::Future { requested, current: space.revision });
        }
        if requested < space.compacted {
            return Err(Error::Compacted { requested, oldest: space.compacted });
        }
        if requested == space.revision {
            return Ok(View { revision, map: space.map.clone() });
        }
        Ok(self.shared.old_view(keyspace, space, revision))
    }

    /// Waits until this member has applied `revision`; [`Error::Future`] at the timeout.
    pub async fn wait_applied(
        &self,
        keyspace: Keyspace,
        revision: u64,
        timeout: Duration,
    ) -> Result<(), Error> {
        let current = || self.shared.state.load().space(keyspace).revision;
        let mut applied = self.shared.applied.subscribe();
        let reached = applied.wait_for(|_| current() >= revision);
        match tokio::time::timeout(timeout, reached).await {
            Ok(reached) => reached.map(|_| ()).map_err(|_| Error::Closed),
            Err(_) => Err(Error::Future { requested: revision, current: current() }),
        }
    }

    /// Every change of `range` after the revision `after`, then live; 0: from now on.
    pub fn watch(&self, keyspace: Keyspace, range: KeyRange, after: u64) -> Result<Watcher, Error> {
        Watcher::new(self.shared.clone(), keyspace, range, after)
    }

    /// Takes a message that a peer's [`Transport`] sent.
    pub fn deliver(&self, message: &[u8]) -> Result<(), Error> {
        let message = raft::decode_message(message)?;
        self.inputs.send(Input::Message(Box::new(message))).map_err(|_| Error::Closed)
    }

    /// Who leads, now and as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// The oldest revision that can be read ([`Store::view_at`]) or watched from.
    pub fn oldest_revision(&self, keyspace: Keyspace) -> u64 {
        self.shared.state.load().space(keyspace).compacted
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}
