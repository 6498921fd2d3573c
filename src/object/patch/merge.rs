//! JSON merge patch (RFC 7386).
//!
//! Why no schema: lists are replaced and `null` removes, whatever the type; this is the patch that
//! custom resources always understand.

use crate::object::{Map, Value};

/// Applies a merge patch.
pub fn apply(current: &Value, patch: &Value) -> Value {
    match (current, patch) {
        (Value::Object(map), Value::Object(changes)) => {
            let mut map = map.clone();
            merge(&mut map, changes);
            Value::Object(map)
        }
        _ => without_nulls(patch),
    }
}

fn merge(map: &mut Map, changes: &Map) {
    for (name, change) in changes {
        match (map.get_mut(name), change) {
            (_, Value::Null) => {
                map.remove(name);
            }
            (Some(Value::Object(inner)), Value::Object(change)) => merge(inner, change),
            _ => {
                map.insert(name.clone(), without_nulls(change));
            }
        }
    }
}

/// Fields that are `null` mean nothing in a new value; items of lists keep theirs.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_merge_lists_are_replaced_and_null_removes() {
        let current = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        let patch = json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}, "d": {"h": 1}});
        assert_eq!(apply(&current, &patch), json!({"a": {"c": [3], "e": {"g": 1}}, "d": {"h": 1}}));
        assert_eq!(apply(&current, &json!({})), current);
    }
}
