//! The Raft log and hard state on disk, as raft-rs wants to read them.
//!
//! Rows of the log: `e` + index -> entry, `h` -> hard state, `t` -> the last entry that was cut
//! off, `i` -> whose directory this is, `s` -> the snapshot that is being installed. Why a cache:
//! what was just appended is read again at once, when it is committed; older entries come from disk
//! (a follower that is behind).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use ::raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use ::raft::util::limit_size;
use ::raft::{GetEntriesContext, RaftState, Storage, StorageError};
use prost::Message;

use crate::store::codec::{Reader, seal, unseal};
use crate::store::disk::{Batch, Disk};
use crate::store::error::Error;

/// Bytes of entries kept in memory beyond those still to be committed.
const CACHE_BYTES_MAX: usize = 1024 * 1024;

const HARD_STATE_KEY: &[u8] = b"h";
const CUT_KEY: &[u8] = b"t";
const IDENTITY_KEY: &[u8] = b"i";
const INSTALL_KEY: &[u8] = b"s";
const ENTRY_PREFIX: u8 = b'e';

/// A new group's log begins behind this entry, so that a member that joins with an empty log always
/// gets a snapshot, and with it the members.
pub(in crate::store) const FIRST_CUT: (u64, u64) = (1, 1);

/// The log.
pub(in crate::store) struct LogStore {
    disk: Arc<Disk>,
    pub(super) hard: HardState,
    pub(super) members: ConfState,
    /// Index and term of the last entry that was cut off.
    cut: (u64, u64),
    /// Bytes of each entry's row, from the first on.
    sizes: VecDeque<u32>,
    bytes: u64,
    /// The log's newest entries.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    /// A peer needs a snapshot of at least this index.
    pub(super) snapshot_wanted: Cell<Option<u64>>,
    pub(super) snapshot: RefCell<Option<Snapshot>>,
}

/// Whose directory it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Identity {
    pub(in crate::store) cluster_id: String,
    pub(in crate::store) node_id: u64,
}

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY_PREFIX; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn decode<T: Message + Default>(row: &[u8]) -> Result<T, Error> {
    T::decode(unseal(row)?).map_err(|error| Error::Corrupt(error.to_string()))
}

fn encode(message: &impl Message) -> Vec<u8> {
    seal(|writer| {
        writer.0.reserve(message.encoded_len());
        // A vector has room for everything.
        let _ = message.encode(&mut writer.0);
    })
}

/// The members as the state keeps them.
pub(in crate::store) fn encode_members(members: &ConfState) -> Vec<u8> {
    members.encode_to_vec()
}

/// The members that a state names.
pub(in crate::store) fn decode_members(bytes: &[u8]) -> Result<ConfState, Error> {
    ConfState::decode(bytes).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Reads whose directory it is; `None` for a new one.
pub(in crate::store) fn read_identity(disk: &Disk) -> Result<Option<Identity>, Error> {
    let Some(row) = disk.log_row(IDENTITY_KEY)? else { return Ok(None) };
    let mut reader = Reader(unseal(&row)?);
    let node_id = reader.number()?;
    let cluster_id = String::from_utf8_lossy(reader.slice()?).into_owned();
    Ok(Some(Identity { cluster_id, node_id }))
}

/// Adds the rows that a new log begins with.
pub(in crate::store) fn add_first_rows(disk: &Disk, batch: &mut Batch, identity: &Identity) {
    let row = seal(|writer| {
        writer.number(identity.node_id);
        writer.bytes(identity.cluster_id.as_bytes());
    });
    disk.add_log(batch, IDENTITY_KEY, &row);
    add_position(disk, batch, CUT_KEY, FIRST_CUT);
    let hard = HardState { term: FIRST_CUT.1, commit: FIRST_CUT.0, ..HardState::default() };
    disk.add_log(batch, HARD_STATE_KEY, &encode(&hard));
}

fn add_position(disk: &Disk, batch: &mut Batch, key: &[u8], (index, term): (u64, u64)) {
    let row = seal(|writer| {
        writer.number(index);
        writer.number(term);
    });
    disk.add_log(batch, key, &row);
}

fn position(disk: &Disk, key: &[u8]) -> Result<Option<(u64, u64)>, Error> {
    let Some(row) = disk.log_row(key)? else { return Ok(None) };
    let mut reader = Reader(unseal(&row)?);
    Ok(Some((reader.number()?, reader.number()?)))
}

impl LogStore {
    /// Reads the log and checks every entry; `applied` is where the state on disk stands.
    pub(in crate::store) fn load(
        disk: Arc<Disk>,
        members: ConfState,
        applied: (u64, u64),
    ) -> Result<Self, Error> {
        let missing = || Error::Corrupt("the log's head is missing".to_owned());
        let mut hard: HardState = decode(&disk.log_row(HARD_STATE_KEY)?.ok_or_else(missing)?)?;
        let cut = position(&disk, CUT_KEY)?.ok_or_else(missing)?;
        let installing = position(&disk, INSTALL_KEY)?;
        let mut sizes = VecDeque::new();
        let mut bytes = 0_u64;
        disk.load_log(|key, value| {
            if key.first() != Some(&ENTRY_PREFIX) {
                return Ok(());
            }
            let entry: Entry = decode(value)?;
            let expected = cut.0 + 1 + sizes.len() as u64;
            if entry.index < expected && sizes.is_empty() {
                return Ok(());
            }
            if entry.index != expected || key != entry_key(expected) {
                return Err(Error::Corrupt(format!(
                    "the log lacks entry {expected} (found {})",
                    entry.index
                )));
            }
            sizes.push_back(value.len() as u32);
            bytes += value.len() as u64;
            Ok(())
        })?;
        let last = cut.0 + sizes.len() as u64;
        let installed = installing == Some(applied);
        if !installed && (applied.0 < cut.0 || applied.0 > last) {
            return Err(Error::Corrupt(format!(
                "the state stands at entry {}, the log holds {} to {last}",
                applied.0,
                cut.0 + 1
            )));
        }
        // The commit index is written with the next batch, so the flushed state may be ahead of
        // it; what was applied was committed.
        hard.commit = hard.commit.max(applied.0);
        let mut log = Self {
            disk,
            hard,
            members,
            cut,
            sizes,
            bytes,
            cache: VecDeque::new(),
            cache_bytes: 0,
            snapshot_wanted: Cell::new(None),
            snapshot: RefCell::new(None),
        };
        if installed {
            // The last run ended between the state's replacement and the log's.
            let members = log.members.clone();
            log.restart_behind(applied, members)?;
        }
        Ok(log)
    }

    pub(super) fn first(&self) -> u64 {
        self.cut.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.cut.0 + self.sizes.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes entries over and adds their rows to a batch; those they replace are gone.
    pub(super) fn append(&mut self, batch: &mut Batch, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let old_last = self.last();
        if first <= old_last {
            let kept = first.saturating_sub(self.first()) as usize;
            let gone = self.sizes.split_off(kept);
            self.bytes -= gone.into_iter().map(u64::from).sum::<u64>();
            while self.cache.back().is_some_and(|entry| entry.index >= first) {
                let gone = self.cache.pop_back();
                self.cache_bytes -= gone.map_or(0, |entry| entry.data.len());
            }
            self.disk.cut_log(batch, &entry_key(first), &entry_key(old_last + 1));
        }
        for entry in entries {
            let row = encode(entry);
            self.disk.add_log(batch, &entry_key(entry.index), &row);
            self.sizes.push_back(row.len() as u32);
            self.bytes += row.len() as u64;
            self.cache_bytes += entry.data.len();
            self.cache.push_back(entry.clone());
        }
    }

    /// Where the newest entries begin that are no more than so many, nor more than so many bytes.
    pub(super) fn tail(&self, entries: u64, bytes: u64) -> u64 {
        let mut total = 0;
        let within = self.sizes.iter().rev().take(entries as usize).take_while(|size| {
            total += u64::from(**size);
            total <= bytes
        });
        self.last() + 1 - within.count() as u64
    }

    /// Adds the hard state to a batch.
    pub(super) fn add_hard(&self, batch: &mut Batch) {
        self.disk.add_log(batch, HARD_STATE_KEY, &encode(&self.hard));
    }

    /// Lets go of cached entries up to `committed` beyond the cache's bound.
    pub(super) fn trim_cache(&mut self, committed: u64) {
        while self.cache_bytes > CACHE_BYTES_MAX
            && self.cache.front().is_some_and(|entry| entry.index <= committed)
        {
            let gone = self.cache.pop_front();
            self.cache_bytes -= gone.map_or(0, |entry| entry.data.len());
        }
    }

    /// Cuts everything up to and including `index`, which must be flushed with the state.
    pub(super) fn cut(&mut self, index: u64) -> Result<(), Error> {
        if index <= self.cut.0 || index > self.last() {
            return Ok(());
        }
        let term = self.term_at(index)?;
        let mut batch = Batch::default();
        self.disk.cut_log(&mut batch, &entry_key(0), &entry_key(index + 1));
        add_position(&self.disk, &mut batch, CUT_KEY, (index, term));
        self.disk.write_log(batch, false)?;
        for size in self.sizes.drain(..(index - self.cut.0) as usize) {
            self.bytes -= u64::from(size);
        }
        self.cut = (index, term);
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            let gone = self.cache.pop_front();
            self.cache_bytes -= gone.map_or(0, |entry| entry.data.len());
        }
        Ok(())
    }

    /// Notes that the state is about to become a snapshot's, which the log then does not reach.
    pub(in crate::store) fn announce_install(&self, at: (u64, u64)) -> Result<(), Error> {
        let mut batch = Batch::default();
        add_position(&self.disk, &mut batch, INSTALL_KEY, at);
        self.disk.write_log(batch, true)
    }

    /// Begins again behind a snapshot that has become the state.
    pub(super) fn restart_behind(
        &mut self,
        (index, term): (u64, u64),
        members: ConfState,
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        self.disk.cut_log(&mut batch, &entry_key(0), &entry_key(u64::MAX));
        self.disk.cut_log(&mut batch, INSTALL_KEY, b"t");
        add_position(&self.disk, &mut batch, CUT_KEY, (index, term));
        self.cut = (index, term);
        self.members = members;
        self.hard.commit = self.hard.commit.max(index);
        if self.hard.term < term {
            (self.hard.term, self.hard.vote) = (term, 0);
        }
        self.sizes.clear();
        self.cache.clear();
        (self.bytes, self.cache_bytes) = (0, 0);
        self.add_hard(&mut batch);
        self.disk.write_log(batch, true)
    }

    fn entry(&self, index: u64) -> Result<Entry, Error> {
        if let Some(first) = self.cache.front().map(|entry| entry.index)
            && index >= first
            && let Some(entry) = self.cache.get((index - first) as usize)
        {
            return Ok(entry.clone());
        }
        let row = self.disk.log_row(&entry_key(index))?;
        decode(&row.ok_or_else(|| Error::Corrupt(format!("log entry {index} is missing")))?)
    }

    fn term_at(&self, index: u64) -> Result<u64, Error> {
        match index == self.cut.0 {
            true => Ok(self.cut.1),
            false => Ok(self.entry(index)?.term),
        }
    }
}

fn unreadable(error: Error) -> ::raft::Error {
    ::raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for LogStore {
    fn initial_state(&self) -> ::raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> ::raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(::raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(::raft::Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into();
        let mut size = 0;
        let mut entries = Vec::new();
        for index in low..high {
            let entry = self.entry(index).map_err(unreadable)?;
            size += entry.data.len() as u64;
            entries.push(entry);
            if max_size.is_some_and(|max| size > max) {
                break;
            }
        }
        limit_size(&mut entries, max_size);
        Ok(entries)
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        if index < self.cut.0 {
            return Err(::raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last() {
            return Err(::raft::Error::Store(StorageError::Unavailable));
        }
        self.term_at(index).map_err(unreadable)
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> ::raft::Result<Snapshot> {
        let needed = request_index.max(self.cut.0);
        if let Some(snapshot) = &*self.snapshot.borrow()
            && snapshot.get_metadata().index >= needed
        {
            return Ok(snapshot.clone());
        }
        // Built on a thread of its own from the published state; raft-rs asks again.
        self.snapshot_wanted.set(Some(needed));
        Err(::raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
