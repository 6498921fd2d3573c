//! What one Raft log entry says: a group of independent transactions, and history to drop.
//!
//! Why groups: whatever arrives while the disk syncs becomes one entry, so a thousand clients
//! share one fsync without knowing of each other. Transactions are encoded by the callers' tasks;
//! the Raft thread only joins the buffers.

use super::codec::{Reader, Writer};
use super::error::Error;
use super::txn::{Compare, KeyRange, Keyspace, Op, Txn};

/// The command encoding's version.
const VERSION: u8 = 1;

/// A decoded log entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Command {
    /// History up to and including these revisions is dropped first.
    pub(super) compact: Vec<(Keyspace, u64)>,
    /// Independent of each other, applied in order.
    pub(super) txns: Vec<Txn>,
}

/// Joins transactions that [`encode_txn`] made into one command.
pub(super) fn encode<'a>(
    compact: &[(Keyspace, u64)],
    txns: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let size = txns.clone().map(<[u8]>::len).sum::<usize>();
    let mut writer = Writer(Vec::with_capacity(size + 16 + compact.len() * 10));
    writer.byte(VERSION);
    writer.number(compact.len() as u64);
    for (keyspace, revision) in compact {
        writer.byte(keyspace.byte());
        writer.number(*revision);
    }
    writer.number(txns.len() as u64);
    txns.for_each(|txn| writer.0.extend_from_slice(txn));
    writer.0
}

/// Reads a command.
pub(super) fn decode(bytes: &[u8]) -> Result<Command, Error> {
    let mut reader = Reader(bytes);
    let version = reader.byte()?;
    if version != VERSION {
        return Err(Error::Corrupt(format!("a log entry of unknown version {version}")));
    }
    let compact = (0..reader.count()?)
        .map(|_| Ok((keyspace(&mut reader)?, reader.number()?)))
        .collect::<Result<_, Error>>()?;
    let txns = (0..reader.count()?).map(|_| txn(&mut reader)).collect::<Result<_, Error>>()?;
    reader.end()?;
    Ok(Command { compact, txns })
}

/// Encodes one transaction.
pub(super) fn encode_txn(txn: &Txn) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.byte(txn.keyspace.byte());
    writer.maybe(txn.term);
    match txn.request_id {
        None => writer.byte(0),
        Some(id) => {
            writer.byte(1);
            writer.0.extend_from_slice(&id.to_be_bytes());
        }
    }
    writer.number(txn.compares.len() as u64);
    txn.compares.iter().for_each(|compare| write_compare(&mut writer, compare));
    for branch in [&txn.success, &txn.failure] {
        writer.number(branch.len() as u64);
        branch.iter().for_each(|op| write_op(&mut writer, op));
    }
    writer.0
}

fn keyspace(reader: &mut Reader) -> Result<Keyspace, Error> {
    let byte = reader.byte()?;
    Keyspace::from_byte(byte).ok_or_else(|| Error::Corrupt(format!("unknown keyspace {byte}")))
}

fn txn(reader: &mut Reader) -> Result<Txn, Error> {
    let keyspace = keyspace(reader)?;
    let term = reader.maybe()?;
    let request_id = match reader.byte()? {
        0 => None,
        _ => Some(u128::from_be_bytes(reader.take(16)?.try_into().unwrap_or_default())),
    };
    let compares = (0..reader.count()?).map(|_| compare(reader)).collect::<Result<_, _>>()?;
    let success = (0..reader.count()?).map(|_| op(reader)).collect::<Result<_, _>>()?;
    let failure = (0..reader.count()?).map(|_| op(reader)).collect::<Result<_, _>>()?;
    Ok(Txn { keyspace, term, request_id, compares, success, failure })
}

fn write_range(writer: &mut Writer, range: &KeyRange) {
    writer.bytes(&range.start);
    writer.byte(u8::from(range.end.is_some()));
    if let Some(end) = &range.end {
        writer.bytes(end);
    }
}

fn range(reader: &mut Reader) -> Result<KeyRange, Error> {
    let start = reader.bytes()?;
    let end = if reader.byte()? == 0 { None } else { Some(reader.bytes()?) };
    Ok(KeyRange { start, end })
}

fn write_compare(writer: &mut Writer, compare: &Compare) {
    let (tag, key, equals) = match compare {
        Compare::ModRevision { key, equals } => (1, key, *equals),
        Compare::CreateRevision { key, equals } => (2, key, *equals),
        Compare::Version { key, equals } => (3, key, *equals),
        Compare::Value { key, equals } => {
            writer.byte(4);
            writer.bytes(key);
            return writer.bytes(equals);
        }
        Compare::RangeEmpty { range } => {
            writer.byte(5);
            return write_range(writer, range);
        }
    };
    writer.byte(tag);
    writer.bytes(key);
    writer.number(equals);
}

fn compare(reader: &mut Reader) -> Result<Compare, Error> {
    let tag = reader.byte()?;
    if tag == 5 {
        return Ok(Compare::RangeEmpty { range: range(reader)? });
    }
    let key = reader.bytes()?;
    match tag {
        1 => Ok(Compare::ModRevision { key, equals: reader.number()? }),
        2 => Ok(Compare::CreateRevision { key, equals: reader.number()? }),
        3 => Ok(Compare::Version { key, equals: reader.number()? }),
        4 => Ok(Compare::Value { key, equals: reader.bytes()? }),
        _ => Err(Error::Corrupt(format!("unknown compare {tag}"))),
    }
}

fn write_op(writer: &mut Writer, op: &Op) {
    match op {
        Op::Put { key, value, slot, expires_at_ms } => {
            writer.byte(1);
            writer.bytes(key);
            writer.bytes(value);
            writer.maybe(slot.map(u64::from));
            writer.maybe(*expires_at_ms);
        }
        Op::Delete { key } => {
            writer.byte(2);
            writer.bytes(key);
        }
        Op::DeleteRange { range } => {
            writer.byte(3);
            write_range(writer, range);
        }
        Op::Get { key } => {
            writer.byte(4);
            writer.bytes(key);
        }
    }
}

fn op(reader: &mut Reader) -> Result<Op, Error> {
    match reader.byte()? {
        1 => {
            let (key, value) = (reader.bytes()?, reader.bytes()?);
            let slot = reader.maybe()?.map(u32::try_from).transpose();
            let slot = slot.map_err(|_| Error::Corrupt("a slot is too large".to_owned()))?;
            Ok(Op::Put { key, value, slot, expires_at_ms: reader.maybe()? })
        }
        2 => Ok(Op::Delete { key: reader.bytes()? }),
        3 => Ok(Op::DeleteRange { range: range(reader)? }),
        4 => Ok(Op::Get { key: reader.bytes()? }),
        tag => Err(Error::Corrupt(format!("unknown operation {tag}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_command_of_every_form_comes_back_and_no_cut_of_it_is_accepted() {
        let key = || Bytes::from_static(b"key");
        let mut txn = Txn::new(Keyspace::Kubernetes)
            .when(Compare::ModRevision { key: key(), equals: 4 })
            .when(Compare::CreateRevision { key: key(), equals: 5 })
            .when(Compare::Version { key: key(), equals: 6 })
            .when(Compare::Value { key: key(), equals: Bytes::from_static(b"v") })
            .when(Compare::RangeEmpty { range: KeyRange::all() })
            .then(Op::Put { key: key(), value: key(), slot: Some(2), expires_at_ms: Some(9) })
            .then(Op::delete("gone"))
            .otherwise(Op::DeleteRange { range: KeyRange::prefix("a/") })
            .otherwise(Op::Get { key: key() })
            .in_term(3);
        txn.request_id = Some(u128::MAX - 1);
        let other = Txn::new(Keyspace::Internal);
        let encoded = [encode_txn(&txn), encode_txn(&other)];
        let compact = vec![(Keyspace::Etcd, 12)];
        let bytes = encode(&compact, encoded.iter().map(|txn| &txn[..]));
        assert_eq!(decode(&bytes).unwrap(), Command { compact, txns: vec![txn, other] });
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }
}
