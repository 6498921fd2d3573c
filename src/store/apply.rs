//! The apply thread: committed log entries in, published states, replies and rows out.
//!
//! Why replies go out before the rows are written: an entry is committed when its log rows are
//! synced; rows of the state only save the next start from reading a longer log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;

use super::command;
use super::disk::{Batch, Disk};
use super::error::Error;
use super::machine::{self, Applied, State};
use super::raft::Input;
use super::rows;
use super::shared::Shared;
use super::txn::TxnReply;

/// Most entries applied before a state is published.
const ENTRIES_PER_PUBLISH_MAX: usize = 256;

/// A committed log entry.
pub(super) struct Committed {
    pub(super) index: u64,
    pub(super) term: u64,
    /// Who proposed it: the session and the group's number.
    pub(super) origin: Option<(u64, u64)>,
    /// The encoded command; empty for an entry that says nothing to the state.
    pub(super) data: Vec<u8>,
    /// The members after it, where it changes them.
    pub(super) members: Option<Bytes>,
}

/// What the Raft thread asks of the apply thread.
pub(super) enum Work {
    /// Apply these.
    Entries(Vec<Committed>),
    /// Replace the state by a snapshot's and tell when that is on disk.
    Install { state: Box<State>, done: Sender<()> },
    /// Write what is left and end.
    Stop,
}

/// The apply thread's own things.
pub(super) struct Applier {
    pub(super) disk: Arc<Disk>,
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: Sender<Input>,
    pub(super) state: State,
}

type Replies = Vec<(u64, Vec<Result<TxnReply, Error>>)>;

impl Applier {
    /// Runs until told to stop.
    pub(super) fn run(mut self, work: &Receiver<Work>) -> Result<(), Error> {
        while let Ok(next) = work.recv() {
            match next {
                Work::Entries(entries) => {
                    let mut entries = entries;
                    while !entries.is_empty() {
                        let rest = entries.split_off(entries.len().min(ENTRIES_PER_PUBLISH_MAX));
                        self.entries(entries)?;
                        entries = rest;
                    }
                }
                Work::Install { state, done } => {
                    self.install(*state)?;
                    let _ = done.send(());
                }
                Work::Stop => break,
            }
        }
        self.disk.flush_state()
    }

    fn entries(&mut self, entries: Vec<Committed>) -> Result<(), Error> {
        let mut applied = Applied::default();
        let mut replies: Replies = Vec::new();
        let term = self.state.term;
        for entry in entries {
            let command = match entry.data.is_empty() {
                true => None,
                false => Some(command::decode(&entry.data)?),
            };
            machine::apply(&mut self.state, (entry.index, entry.term), command, &mut applied);
            if let Some(members) = entry.members {
                self.state.members = members;
            }
            let outcomes = std::mem::take(&mut applied.outcomes);
            self.shared.counters.txns.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
            if let Some((_, group)) = entry.origin.filter(|from| from.0 == self.shared.session) {
                replies.push((group, outcomes));
            }
        }
        self.publish(&applied);
        self.reply(replies);
        if self.state.term != term {
            let _ = self.inputs.send(Input::TermApplied);
        }
        let mut batch = Batch::default();
        rows::changed(&self.state, &applied, |row| self.disk.add(&mut batch, row));
        self.disk.write_state(batch)
    }

    fn publish(&self, applied: &Applied) {
        self.shared.state.store(Arc::new(self.state.clone()));
        if !applied.compacted.is_empty() {
            self.shared.forget_old_views();
        }
        for (keyspace, _, event) in &applied.events {
            self.shared.expiry.follow(*keyspace, event);
        }
        let changes = applied.events.iter().map(|(space, _, event)| (*space, &event.entry.key[..]));
        self.shared.hub.publish(changes);
        self.shared.applied.send_replace(self.state.index);
    }

    fn reply(&self, replies: Replies) {
        let mut ready = Vec::with_capacity(replies.len());
        let mut waiting = self.shared.waiting.lock();
        for (group, outcomes) in replies {
            if let Some(waiters) = waiting.remove(&group) {
                ready.push((waiters, outcomes));
            }
        }
        drop(waiting);
        for (waiters, outcomes) in ready {
            for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                // The caller may have gone away; its write stands all the same.
                let _ = waiter.reply.send(outcome);
            }
        }
    }

    fn install(&mut self, state: State) -> Result<(), Error> {
        self.state = state;
        let mut batch = Batch::default();
        self.disk.add_clear(&mut batch);
        rows::all(&self.state, |row| self.disk.add(&mut batch, row));
        self.disk.write_state(batch)?;
        self.disk.flush_state()?;
        self.shared.state.store(Arc::new(self.state.clone()));
        self.shared.forget_old_views();
        self.shared.expiry.load(&self.state);
        self.shared.hub.wake_all(false);
        self.shared.applied.send_replace(self.state.index);
        Ok(())
    }
}
