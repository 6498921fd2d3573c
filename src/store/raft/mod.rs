//! Raft: the log on disk (`storage`), the thread that drives the group (`node`), the state as a
//! snapshot (`snapshot`), its voice in our logs (`logger`). The only folder that imports `raft`.
//!
//! Why one thread: raft-rs is a plain state machine. What arrives while the disk syncs is the next
//! batch, so the thread needs no timer for group commit. A single member is a group of one voter
//! with nobody to send to: the same code, no [`Transport`].

pub(super) mod logger;
pub(super) mod node;
mod snapshot;
pub(super) mod storage;

use prost::Message as _;
use tokio::sync::oneshot;

use super::error::Error;
use super::shared::Waiter;

#[cfg(test)]
pub(super) use ::raft::eraftpb::MessageType;
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

/// Reads a peer's message.
pub(super) fn decode_message(bytes: &[u8]) -> Result<Message, Error> {
    Message::decode(bytes).map_err(|error| Error::Invalid(format!("peer message: {error}")))
}

/// Where messages to peers go. The store encodes them; whoever wires it moves the bytes and hands
/// what arrives to [`super::Store::deliver`].
pub trait Transport: Send + Sync {
    /// Sends to a member without waiting; false where it cannot be reached. Raft sends again what
    /// gets lost.
    fn send(&self, to: u64, message: Vec<u8>) -> bool;
}
