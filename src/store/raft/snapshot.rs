//! The state as a Raft snapshot and back: the rows that stand on disk, one behind the other.
//!
//! Why rows: each carries its checksum and its format, so a snapshot needs neither of its own, and
//! what a member installs is what it would have written itself.

use ::raft::eraftpb::Snapshot;

use super::storage::decode_members;
use crate::store::codec::{Reader, Writer};
use crate::store::error::Error;
use crate::store::machine::State;
use crate::store::rows::{self, Loader, Row, Table};

/// A snapshot: every row of the state.
pub(super) fn build(state: &State) -> Result<Snapshot, Error> {
    let mut writer = Writer::default();
    rows::all(state, |row| {
        if let Row::Put(table, key, value) = row {
            writer.byte(table as u8);
            writer.bytes(&key);
            writer.bytes(&value);
        }
    });
    let mut snapshot = Snapshot { data: writer.0, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = state.index;
    metadata.term = state.term;
    metadata.set_conf_state(decode_members(&state.members)?);
    Ok(snapshot)
}

/// The state that a snapshot holds; everything in it is checked.
pub(super) fn read(snapshot: &Snapshot) -> Result<State, Error> {
    let mut loader = Loader::default();
    let mut reader = Reader(&snapshot.data);
    while !reader.0.is_empty() {
        let table = match reader.byte()? {
            1 => Table::State,
            2 => Table::History,
            3 => Table::Meta,
            other => return Err(Error::Corrupt(format!("unknown table {other}"))),
        };
        let key = reader.slice()?;
        loader.row(table, key, reader.slice()?)?;
    }
    let missing = || Error::Corrupt("a snapshot without a position".to_owned());
    let state = loader.finish()?.ok_or_else(missing)?;
    if state.index != snapshot.get_metadata().index {
        return Err(Error::Corrupt("a snapshot of another position".to_owned()));
    }
    Ok(state)
}
