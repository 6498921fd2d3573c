//! Table columns and cells: what `kubectl get` shows (upstream's `printers/internalversion`).
//!
//! Why cells as data: most are a value at a path; only computed ones are functions.

use jiff::Timestamp;

use crate::api::kind::{Column, age, human_duration};
use crate::object::selector::Selector;
use crate::object::{Map, Value, meta};

/// A text that is always shown.
pub(super) const fn col(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0 }
}

/// A text that is shown with `-o wide`.
pub(super) const fn wide(name: &'static str) -> Column {
    Column { priority: 1, ..col(name) }
}

/// A whole number.
pub(super) const fn int(name: &'static str) -> Column {
    Column { kind: "integer", ..col(name) }
}

/// A yes or no.
pub(super) const fn boolean(name: &'static str) -> Column {
    Column { kind: "boolean", ..col(name) }
}

/// The Name column, for kinds that place it themselves.
pub(super) const fn name_column(priority: i32) -> Column {
    Column { name: "Name", kind: "string", format: "name", priority }
}

/// Age, the last of most.
pub(super) const AGE: Column = col("Age");

/// How a cell is found.
#[derive(Clone, Copy)]
pub(super) enum Cell {
    /// The text at a path, "" where it is missing.
    Text(&'static [&'static str]),
    /// The value at a path, or a text that says it is missing.
    Or(&'static [&'static str], &'static str),
    /// The number at a path, 0 where it is missing.
    Int(&'static [&'static str]),
    /// The boolean at a path, false where it is missing.
    Bool(&'static [&'static str]),
    /// How many items or members the value at a path has.
    Count(&'static [&'static str]),
    /// Time since creation.
    Age,
    /// Computed.
    Made(fn(&Value) -> Value),
}

/// The cells of an object.
pub(super) fn cells(object: &Value, how: &[Cell], now: Timestamp) -> Vec<Value> {
    how.iter().map(|cell| made(object, *cell, now)).collect()
}

fn made(object: &Value, cell: Cell, now: Timestamp) -> Value {
    match cell {
        Cell::Text(path) => meta::text(object, path).into(),
        Cell::Or(path, missing) => match meta::at(object, path) {
            None | Some(Value::Null) => missing.into(),
            Some(Value::String(text)) if text.is_empty() => missing.into(),
            Some(Value::String(text)) => text.as_str().into(),
            Some(other) => other.to_string().into(),
        },
        Cell::Int(path) => number(object, path).into(),
        Cell::Bool(path) => (meta::at(object, path) == Some(&Value::Bool(true))).into(),
        Cell::Count(path) => count(object, path).into(),
        Cell::Age => age(object, now).into(),
        Cell::Made(make) => make(object),
    }
}

/// The number at a path, 0 where it is missing.
pub(super) fn number(object: &Value, path: &[&str]) -> i64 {
    meta::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// How many items or members the value at a path has.
pub(super) fn count(object: &Value, path: &[&str]) -> usize {
    match meta::at(object, path) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

/// The items of the list at a path.
pub(super) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    meta::at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of the list at a path.
pub(super) fn texts<'a>(object: &'a Value, path: &[&str]) -> Vec<&'a str> {
    list(object, path).iter().filter_map(Value::as_str).collect()
}

/// Text or a stand-in for the empty one.
pub(super) fn or<'a>(text: &'a str, missing: &'a str) -> &'a str {
    if text.is_empty() { missing } else { text }
}

/// The status of the condition of a type, "" where there is none.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    list(object, &["status", "conditions"])
        .iter()
        .find(|condition| meta::text(condition, &["type"]) == kind)
        .map_or("", |condition| meta::text(condition, &["status"]))
}

/// Time since the time at a path.
pub(super) fn since(object: &Value, path: &[&str], now: Timestamp) -> Option<String> {
    let time = crate::object::time::parse(meta::text(object, path))?;
    Some(human_duration(now.as_second() - time.as_second()))
}

/// Names and images of the containers of the PodSpec at a path.
pub(super) fn containers(object: &Value, path: &[&str]) -> [Value; 2] {
    let spec = meta::at(object, path).unwrap_or(&Value::Null);
    let column = |member: &str| {
        let all: Vec<&str> = list(spec, &["containers"])
            .iter()
            .map(|container| meta::text(container, &[member]))
            .collect();
        Value::from(all.join(","))
    };
    [column("name"), column("image")]
}

/// A map of labels as `a=b,c=d`.
pub(super) fn labels(map: Option<&Map>) -> String {
    let pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A LabelSelector as a query writes it; a ReplicationController's plain map too.
pub(super) fn selector(object: &Value, path: &[&str]) -> Value {
    let value = meta::at(object, path).unwrap_or(&Value::Null);
    match Selector::from_label_selector(value) {
        Ok(selector) if selector.nothing || selector.is_everything() => "<none>".into(),
        Ok(mut selector) => {
            selector.requirements.sort_by(|a, b| a.key.cmp(&b.key));
            selector.to_string().into()
        }
        Err(_) => "<error>".into(),
    }
}
