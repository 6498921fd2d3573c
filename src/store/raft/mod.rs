//! Raft: the log on disk ([`storage`]), the thread that drives the group ([`node`]), its voice in
//! our logs ([`logger`]). The only folder that imports `raft`.
//!
//! Why one thread: raft-rs is a plain state machine. What arrives while the disk syncs is the next
//! batch, so the thread needs no timer for group commit. A single member is a group of one voter
//! with nobody to send to: the same code, a [`Transport`] that has no peers.

pub(super) mod logger;
pub(super) mod node;
pub(super) mod storage;

use tokio::sync::oneshot;

use super::error::Error;
use super::shared::Waiter;

pub(super) use ::raft::eraftpb::{ConfState, Message};

/// A transaction on its way into the log.
pub(super) struct Proposal {
    /// What [`super::command::encode_txn`] made of it.
    pub(super) bytes: Vec<u8>,
    /// It only removes, so it passes when the disk is nearly full.
    pub(super) only_deletes: bool,
    /// Who waits.
    pub(super) waiter: Waiter,
}

/// What the Raft thread is told.
pub(super) enum Input {
    /// Propose this.
    Propose(Proposal),
    /// Answer with the log index that a linearizable read must have applied.
    Read(oneshot::Sender<Result<u64, Error>>),
    /// A peer says this.
    Message(Box<Message>),
    /// A snapshot that was asked for is ready.
    Snapshot(Result<::raft::eraftpb::Snapshot, Error>),
    /// The applied state has reached another term.
    TermApplied,
    /// End.
    Stop,
}

/// Where messages to peers go.
pub(super) trait Transport: Send {
    /// Sends without waiting; Raft sends again what gets lost.
    fn send(&self, messages: Vec<Message>);
}

/// The transport of a group of one.
pub(super) struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, messages: Vec<Message>) {
        if let Some(message) = messages.first() {
            tracing::warn!(to = message.to, "no way to reach a peer; its messages are dropped");
        }
    }
}
