//! Stored bytes into the version that was asked for, and back.
//!
//! Why so little: in the storage version, which is nearly always, bytes pass untouched.

use bytes::Bytes;

use crate::api::body::to_bytes;
use crate::api::data;
use crate::api::kind::Kind;
use crate::object::status::Result;
use crate::object::{Value, meta};
use crate::store::Entry;

/// An entry's bytes in `kind`'s version.
pub fn bytes(kind: &Kind, stored: &Bytes) -> Result<Bytes> {
    if kind.is_stored() {
        return Ok(stored.clone());
    }
    Ok(to_bytes(&value(kind, stored)?).into())
}

/// Stored bytes as a value in `kind`'s version.
pub fn value(kind: &Kind, stored: &[u8]) -> Result<Value> {
    let value = data::decode(stored)?;
    if kind.is_stored() { Ok(value) } else { kind.strategy.convert(value, &kind.gvk) }
}

/// A value in `kind`'s version as it is stored.
pub fn stored(kind: &Kind, value: Value) -> Result<Value> {
    if kind.is_stored() { Ok(value) } else { kind.strategy.convert(value, &kind.storage_version) }
}

/// What was written: the value that was given to the store and the entry that came of it.
pub fn written(kind: &Kind, mut value: Value, entry: &Entry) -> Result<(Value, Bytes)> {
    meta::set(&mut value, &["metadata", "resourceVersion"], entry.mod_revision.to_string());
    let bytes = if kind.is_stored() { entry.value.clone() } else { to_bytes(&value).into() };
    Ok((value, bytes))
}
