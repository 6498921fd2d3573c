//! What the store is told at start.
//!
//! Why plain fields: the caller (a role, or a test that wants tiny bounds) sets what it cares about
//! and takes the rest from [`Config::new`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::raft::Transport;
use crate::stdx::clock::{SharedClock, SystemClock};
use crate::stdx::limits::HISTORY_AGE_MAX;

/// How often Raft's clock ticks.
const TICK: Duration = Duration::from_millis(100);
/// Ticks without a leader before an election (at most twice this).
const ELECTION_TICKS: usize = 10;
/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Most bytes of history per keyspace; at it, older history is dropped (watchers get a 410).
const HISTORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of log beyond which its flushed part is cut.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries of log beyond which its flushed part is cut.
const LOG_ENTRIES_MAX: u64 = 20_000;
/// Below this many free bytes, writes are refused ([`super::Error::DiskFull`]).
const DISK_FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Bytes kept in a file of no use, given back when the disk runs full so that what is under way
/// can still end.
const BALLAST_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of proposals under way at once; more wait their turn.
const PROPOSALS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a linearizable read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction may take.
const TXN_TIMEOUT: Duration = Duration::from_secs(30);

/// The store's settings.
#[derive(Clone)]
pub struct Config {
    /// The directory, made if absent.
    pub dir: PathBuf,
    /// This member's id in the Raft group, never 0.
    pub node_id: u64,
    /// The cluster's id. Empty: whatever the directory says, or a new one. A directory that says
    /// otherwise is refused.
    pub cluster_id: String,
    /// The group's voters at its first start; empty: this member alone.
    pub voters: Vec<u64>,
    /// How to reach the other members.
    pub transport: Option<Arc<dyn Transport>>,
    /// Time, for expiry.
    pub clock: SharedClock,
    /// How often Raft's clock ticks.
    pub tick: Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// How long history is kept.
    pub history_age_max: Duration,
    /// How many bytes of history are kept per keyspace.
    pub history_bytes_max: usize,
    /// Bytes of log beyond which its flushed part is cut.
    pub log_bytes_max: u64,
    /// Entries of log beyond which its flushed part is cut.
    pub log_entries_max: u64,
    /// Free bytes below which writes are refused.
    pub disk_free_bytes_min: u64,
    /// Size of the ballast file; 0: none.
    pub ballast_bytes: u64,
    /// Bytes of proposals under way at once.
    pub proposals_bytes_max: usize,
    /// How long a linearizable read may take.
    pub read_timeout: Duration,
    /// How long a transaction may take.
    pub txn_timeout: Duration,
}

impl Config {
    /// The usual settings for member 1 with its data in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            node_id: 1,
            cluster_id: String::new(),
            voters: Vec::new(),
            transport: None,
            clock: SystemClock::shared(),
            tick: TICK,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: HEARTBEAT_TICKS,
            history_age_max: HISTORY_AGE_MAX,
            history_bytes_max: HISTORY_BYTES_MAX,
            log_bytes_max: LOG_BYTES_MAX,
            log_entries_max: LOG_ENTRIES_MAX,
            disk_free_bytes_min: DISK_FREE_BYTES_MIN,
            ballast_bytes: BALLAST_BYTES,
            proposals_bytes_max: PROPOSALS_BYTES_MAX,
            read_timeout: READ_TIMEOUT,
            txn_timeout: TXN_TIMEOUT,
        }
    }
}
