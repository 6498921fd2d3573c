//! What can go wrong in the store, in words for the layer above.
//!
//! Why one enum: the API server maps each case to one Status (410, 504, 507-like, 503), and a
//! caller must be able to tell "nothing happened" from "the outcome is unknown".

use std::path::PathBuf;

/// A store error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The history no longer reaches the asked revision (HTTP 410).
    #[error("revision {requested} is no longer kept, the oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: u64,
        /// The oldest revision that can be read or watched from.
        oldest: u64,
    },
    /// The asked revision does not exist yet (HTTP 504, "too large resource version").
    #[error("revision {requested} is ahead of the current revision {current}")]
    Future {
        /// What was asked for.
        requested: u64,
        /// The newest revision here.
        current: u64,
    },
    /// Another member leads; nothing was proposed.
    #[error("this member does not lead (leader: {leader:?})")]
    NotLeader {
        /// The leader's id, if one is known.
        leader: Option<u64>,
    },
    /// The transaction named a term that is over; nothing was changed.
    #[error("the leadership of term {expected} is over (term {current}); nothing was changed")]
    Fenced {
        /// The term that the transaction carried.
        expected: u64,
        /// The term it would have been applied in.
        current: u64,
    },
    /// Leadership was lost with the transaction under way: it may or may not have happened.
    #[error("leadership was lost while the write was under way; its outcome is unknown")]
    Unknown,
    /// Free space is under the watermark; nothing was proposed.
    #[error("the disk under the store is nearly full ({free} bytes free, {needed} needed)")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// No quorum answered in time; for a write the outcome is unknown.
    #[error("the store did not answer in time")]
    Timeout,
    /// The transaction breaks a bound or a form; nothing was proposed.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// The store has stopped.
    #[error("the store has stopped")]
    Closed,
    /// The directory belongs to another cluster or member.
    #[error("{dir} belongs to {what} {found:?}, not to {expected:?}", dir = dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// "cluster" or "member".
        what: &'static str,
        /// Whose it is.
        found: String,
        /// Who asked for it.
        expected: String,
    },
    /// Another process holds the directory.
    #[error("{dir} is in use by another process", dir = .0.display())]
    Locked(PathBuf),
    /// Something on disk is not what was written there.
    #[error("corrupt store: {0}")]
    Corrupt(String),
    /// The disk refused.
    #[error("store disk: {0}")]
    Disk(String),
}
