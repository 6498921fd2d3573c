//! ConfigMap.
//!
//! Why its size is bounded by 1 MiB: it is mounted whole, and watched by every node that does.

use jiff::Timestamp;

use super::super::columns::{AGE, col, count};
use super::super::field::{Errors, Field};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::Value;
use crate::object::status::FieldError;

/// The ConfigMap's strategy.
pub(in super::super) struct ConfigMap;

/// Bytes of all values of a ConfigMap or Secret; more is a 422.
pub(in super::super) const DATA_BYTES_MAX: usize = 1024 * 1024;

impl Strategy for ConfigMap {
    fn prepare_create(&self, _write: &Write<'_>, _object: &mut Value) {}

    fn splits_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(&Field::root(object), &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        sealed(&Field::root(new), &Field::root(old), &["data", "binaryData"], &mut out);
        check(&Field::root(new), &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("Data"), AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let entries = count(object, &["data"]) + count(object, &["binaryData"]);
        vec![entries.into(), age(object, now).into()]
    }
}

fn check(root: &Field, out: &mut Errors) {
    let (data, binary) = (root.get("data"), root.get("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::config_key(key).into_iter().for_each(|fault| {
            out.push(value.invalid_as(key, fault));
        });
        if binary.key(key).is_set() {
            out.push(value.invalid_as(key, "duplicate of key present in binaryData"));
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        names::config_key(key).into_iter().for_each(|fault| {
            out.push(value.invalid_as(key, fault));
        });
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_BYTES_MAX {
        // Upstream's spelling of a path without a name.
        out.push(FieldError::too_long("[]", DATA_BYTES_MAX));
    }
}

/// What an object that once said `immutable: true` may no longer change.
pub(super) fn sealed(new: &Field, old: &Field, data: &[&str], out: &mut Errors) {
    const SEALED: &str = "field is immutable when `immutable` is set";
    if !old.get("immutable").flag() {
        return;
    }
    if !new.get("immutable").flag() {
        out.push(new.get("immutable").forbidden(SEALED));
    }
    for name in data {
        if !validate::same(new.get(name).value(), old.get(name).value()) {
            out.push(new.get(name).forbidden(SEALED));
        }
    }
}

/// How many bytes a base64 text stands for.
pub(super) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{errors_of_create, errors_of_update};
    use serde_json::json;

    #[test]
    fn keys_sizes_and_seals_are_checked() {
        let texts = errors_of_create(
            &ConfigMap,
            &json!({"data": {"a b": "x", "c": "y"}, "binaryData": {"c": "AAAA"}}),
        );
        assert!(texts[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must"));
        let duplicate = "data[c]: Invalid value: \"c\": duplicate of key present in binaryData";
        assert_eq!(texts[1], duplicate);
        let long = "x".repeat(DATA_BYTES_MAX + 1);
        let texts = errors_of_create(&ConfigMap, &json!({"data": {"a": long}}));
        assert_eq!(texts, ["[]: Too long: may not be more than 1048576 bytes"]);
        let old = json!({"immutable": true, "data": {"a": "b"}});
        let texts = errors_of_update(&ConfigMap, "", &json!({"data": {"a": "c"}}), &old);
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[1], "data: Forbidden: field is immutable when `immutable` is set");
    }
}
