//! The state as rows: what stands on disk, and what a Raft snapshot carries, is the same.
//!
//! Why history rows hold only the state *before* a change: the state after it is either the next
//! change's "before" or what exists now, so each value is written once; loading walks history
//! backwards and puts them together again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Reader, Writer, seal, unseal};
use super::error::Error;
use super::machine::{Applied, Place, Requested, State};
use super::txn::{Entry, Event, EventKind, Keyspace, Slot};

/// Which column family a row lives in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Table {
    /// What exists: keyspace byte and key -> entry.
    State = 1,
    /// What happened: keyspace byte, revision, number -> event.
    History = 2,
    /// Position, revisions, members, request ids.
    Meta = 3,
}

/// One change of the state on disk.
pub(super) enum Row {
    /// Writes a row.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a row.
    Delete(Table, Vec<u8>),
    /// Removes rows from the first key up to, not including, the second.
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

/// The meta row that says how far the state on disk is.
pub(super) const POSITION_KEY: &[u8] = b"position";
/// Begins the meta rows of request ids.
const REQUEST_PREFIX: u8 = b'r';
const REQUEST_KEY_BYTES: usize = 17;

fn state_key(keyspace: Keyspace, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1);
    row.push(keyspace.byte());
    row.extend_from_slice(key);
    row
}

fn history_key(keyspace: Keyspace, (revision, sub): Place) -> Vec<u8> {
    let mut row = Vec::with_capacity(13);
    row.push(keyspace.byte());
    row.extend_from_slice(&revision.to_be_bytes());
    row.extend_from_slice(&sub.to_be_bytes());
    row
}

fn request_key(id: u128) -> Vec<u8> {
    let mut row = Vec::with_capacity(REQUEST_KEY_BYTES);
    row.push(REQUEST_PREFIX);
    row.extend_from_slice(&id.to_be_bytes());
    row
}

fn write_entry(writer: &mut Writer, entry: &Entry) {
    writer.number(entry.create_revision);
    writer.number(entry.mod_revision);
    writer.number(entry.version);
    writer.maybe(entry.expires_at_ms);
    writer.maybe(entry.slot.map(|slot| u64::from(slot.offset)));
    writer.byte(entry.slot.map_or(0, |slot| slot.digits));
    writer.bytes(&entry.value);
}

fn read_entry(key: Bytes, reader: &mut Reader) -> Result<Entry, Error> {
    let create_revision = reader.number()?;
    let mod_revision = reader.number()?;
    let version = reader.number()?;
    let expires_at_ms = reader.maybe()?;
    let offset = reader.maybe()?;
    let digits = reader.byte()?;
    let value = reader.bytes()?;
    let slot = offset.map(|offset| Slot { offset: offset as u32, digits });
    if slot.is_some_and(|slot| slot.offset as usize + slot.digits as usize > value.len()) {
        return Err(Error::Corrupt("a slot outside its value".to_owned()));
    }
    Ok(Entry { key, value, slot, create_revision, mod_revision, version, expires_at_ms })
}

fn entry_row(keyspace: Keyspace, entry: &Entry) -> Row {
    let value = seal(|writer| write_entry(writer, entry));
    Row::Put(Table::State, state_key(keyspace, &entry.key), value)
}

fn event_row(keyspace: Keyspace, place: Place, event: &Event) -> Row {
    let value = seal(|writer| {
        writer.byte(u8::from(event.kind == EventKind::Delete));
        writer.bytes(&event.entry.key);
        writer.byte(u8::from(event.prev.is_some()));
        if let Some(prev) = &event.prev {
            write_entry(writer, prev);
        }
    });
    Row::Put(Table::History, history_key(keyspace, place), value)
}

fn request_row(id: u128, requested: &Requested) -> Row {
    let value = seal(|writer| {
        writer.number(requested.order);
        writer.byte(u8::from(requested.succeeded));
        writer.number(requested.revision);
    });
    Row::Put(Table::Meta, request_key(id), value)
}

fn position_row(state: &State) -> Row {
    let value = seal(|writer| {
        writer.number(state.index);
        writer.number(state.term);
        for space in &state.spaces {
            writer.number(space.revision);
            writer.number(space.compacted);
        }
        writer.bytes(&state.members);
    });
    Row::Put(Table::Meta, POSITION_KEY.to_vec(), value)
}

/// The log index that a position row names.
pub(super) fn position_index(row: &[u8]) -> Result<u64, Error> {
    Reader(unseal(row)?).number()
}

/// The rows that change with `applied`; `state` is the one after it.
pub(super) fn changed(state: &State, applied: &Applied, mut emit: impl FnMut(Row)) {
    for (keyspace, place, event) in &applied.events {
        emit(event_row(*keyspace, *place, event));
        match event.kind {
            EventKind::Put => emit(entry_row(*keyspace, &event.entry)),
            EventKind::Delete => {
                emit(Row::Delete(Table::State, state_key(*keyspace, &event.entry.key)));
            }
        }
    }
    for (keyspace, revision) in &applied.compacted {
        let from = history_key(*keyspace, (0, 0));
        emit(Row::DeleteRange(Table::History, from, history_key(*keyspace, (revision + 1, 0))));
    }
    for (id, requested) in &applied.requests {
        emit(match requested {
            Some(requested) => request_row(*id, requested),
            None => Row::Delete(Table::Meta, request_key(*id)),
        });
    }
    emit(position_row(state));
}

/// Every row of a state, in the order of tables and keys: a snapshot, and the measure of whether
/// two members are equal.
pub(super) fn all(state: &State, mut emit: impl FnMut(Row)) {
    for keyspace in Keyspace::ALL {
        state.space(keyspace).map.values().for_each(|entry| emit(entry_row(keyspace, entry)));
    }
    for keyspace in Keyspace::ALL {
        let history = &state.space(keyspace).history;
        history.iter().for_each(|(place, event)| emit(event_row(keyspace, *place, event)));
    }
    emit(position_row(state));
    state.requests.iter().for_each(|(id, requested)| emit(request_row(*id, requested)));
}

/// Puts a state together from its rows, whatever their order.
#[derive(Default)]
pub(super) struct Loader {
    state: State,
    positioned: bool,
    events: Vec<(Keyspace, Place, RawEvent)>,
}

struct RawEvent {
    kind: EventKind,
    key: Bytes,
    prev: Option<Arc<Entry>>,
}

impl Loader {
    /// Takes one row.
    pub(super) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut reader = Reader(unseal(value)?);
        let reader = &mut reader;
        match table {
            Table::State => {
                let mut row = Reader(key);
                let keyspace = keyspace_of(&mut row)?;
                let entry = read_entry(Bytes::copy_from_slice(row.0), reader)?;
                let map = &mut self.state.space_mut(keyspace).map;
                map.insert(entry.key.clone(), Arc::new(entry));
            }
            Table::History => {
                let mut row = Reader(key);
                let keyspace = keyspace_of(&mut row)?;
                let revision = u64::from_be_bytes(row.take(8)?.try_into().unwrap_or_default());
                let sub = u32::from_be_bytes(row.take(4)?.try_into().unwrap_or_default());
                self.events.push((keyspace, (revision, sub), raw_event(reader)?));
            }
            Table::Meta if key == POSITION_KEY => self.position(reader)?,
            Table::Meta if key.len() == REQUEST_KEY_BYTES && key[0] == REQUEST_PREFIX => {
                let id = u128::from_be_bytes(key[1..].try_into().unwrap_or_default());
                let order = reader.number()?;
                let succeeded = reader.byte()? != 0;
                let revision = reader.number()?;
                self.state.requests.insert(id, Requested { order, succeeded, revision });
                self.state.requests_by_order.insert(order, id);
            }
            Table::Meta => return Err(Error::Corrupt("an unknown meta row".to_owned())),
        }
        reader.end()
    }

    fn position(&mut self, reader: &mut Reader) -> Result<(), Error> {
        self.state.index = reader.number()?;
        self.state.term = reader.number()?;
        for space in &mut self.state.spaces {
            space.revision = reader.number()?;
            space.compacted = reader.number()?;
        }
        self.state.members = reader.bytes()?;
        self.positioned = true;
        Ok(())
    }

    /// The state, or `None` where no position was among the rows.
    pub(super) fn finish(mut self) -> Result<Option<State>, Error> {
        if !self.positioned {
            let empty = self.events.is_empty()
                && self.state.spaces.iter().all(|space| space.map.is_empty());
            let lost = || Error::Corrupt("rows without a position".to_owned());
            return if empty { Ok(None) } else { Err(lost()) };
        }
        self.events.sort_by_key(|(keyspace, place, _)| std::cmp::Reverse((*keyspace, *place)));
        let mut newer: HashMap<(Keyspace, Bytes), Option<Arc<Entry>>> = HashMap::new();
        for (keyspace, place, raw) in std::mem::take(&mut self.events) {
            let space = self.state.space_mut(keyspace);
            let slot = (keyspace, raw.key.clone());
            let after = newer
                .insert(slot, raw.prev.clone())
                .unwrap_or_else(|| space.map.get(&raw.key).cloned());
            let entry = match raw.kind {
                EventKind::Put => after.filter(|entry| entry.mod_revision == place.0),
                EventKind::Delete => raw.prev.clone(),
            };
            let entry = entry.ok_or_else(|| {
                Error::Corrupt(format!("history at {} does not match the state", place.0))
            })?;
            let event = Event { revision: place.0, kind: raw.kind, entry, prev: raw.prev };
            space.remember(place, event);
        }
        Ok(Some(self.state))
    }
}

fn keyspace_of(row: &mut Reader) -> Result<Keyspace, Error> {
    let byte = row.byte()?;
    Keyspace::from_byte(byte).ok_or_else(|| Error::Corrupt(format!("unknown keyspace {byte}")))
}

fn raw_event(reader: &mut Reader) -> Result<RawEvent, Error> {
    let kind = if reader.byte()? == 0 { EventKind::Put } else { EventKind::Delete };
    let key = reader.bytes()?;
    let prev = match reader.byte()? {
        0 => None,
        _ => Some(Arc::new(read_entry(key.clone(), reader)?)),
    };
    Ok(RawEvent { kind, key, prev })
}
