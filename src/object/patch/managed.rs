//! `metadata.managedFields`: who set which fields, how and when.
//!
//! Why a type of its own: entries of one manager and operation are one entry, clients may reset
//! them, and their number is bounded.

use super::fields::Set;
use crate::object::{Map, Value, meta};

/// Managers that updated (not applied) which are kept apart (upstream's bound); the oldest beyond
/// it are folded into one.
pub const UPDATE_MANAGERS_MAX: usize = 10;

/// What the oldest updates are folded into.
const ANCIENT: &str = "ancient-changes";

/// How fields were set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By anything else.
    Update,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The client's name.
    pub manager: String,
    /// How it set them.
    pub operation: Operation,
    /// The version that the set's names are of.
    pub api_version: String,
    /// The subresource, or "".
    pub subresource: String,
    /// When, RFC 3339.
    pub time: Option<String>,
    /// Its fields.
    pub set: Set,
}

impl Entry {
    /// Whether both are of one manager. Who applies stays one manager whatever the version.
    pub fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn read(value: &Value) -> Option<Entry> {
        let text = |name| meta::text(value, &[name]).to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        Some(Entry {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: value.get("time").and_then(Value::as_str).map(str::to_owned),
            set: value.get("fieldsV1").map(Set::from_value).unwrap_or_default(),
        })
    }

    fn write(&self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                map.insert(name.to_owned(), text.into());
            }
        };
        put("manager", &self.manager);
        put("operation", if self.operation == Operation::Apply { "Apply" } else { "Update" });
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or(""));
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        map.insert("fieldsV1".to_owned(), self.set.to_value());
        Value::Object(map)
    }
}

/// Reads an object's entries; `None` when one of them cannot be read.
pub fn read(object: &Value) -> Option<Vec<Entry>> {
    let entries = meta::at(object, &["metadata", "managedFields"]);
    entries.and_then(Value::as_array).into_iter().flatten().map(Entry::read).collect()
}

/// Whether a client asked to forget all managers: an empty list, or one empty entry.
pub fn is_reset(object: &Value) -> bool {
    match meta::at(object, &["metadata", "managedFields"]).and_then(Value::as_array) {
        Some(entries) => match entries.as_slice() {
            [] => true,
            [one] => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        },
        None => false,
    }
}

/// Writes the entries, in upstream's order.
pub fn write(object: &mut Value, mut entries: Vec<Entry>) {
    meta::remove(object, &["metadata", "managedFields"]);
    entries.retain(|entry| !entry.set.is_empty());
    if entries.is_empty() {
        return;
    }
    entries.sort_by(|a, b| {
        let order = |entry: &Entry| {
            (
                entry.operation,
                entry.time.clone().unwrap_or_default(),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        order(a).cmp(&order(b))
    });
    let values: Vec<Value> = entries.iter().map(Entry::write).collect();
    meta::set(object, &["metadata", "managedFields"], values);
}

/// Folds the oldest updates of a version into one entry until the bound is kept.
pub fn cap(entries: &mut Vec<Entry>) {
    let mut updates: Vec<Entry> = Vec::new();
    let mut rest: Vec<Entry> = Vec::new();
    for entry in entries.drain(..) {
        if entry.operation == Operation::Update { &mut updates } else { &mut rest }.push(entry);
    }
    updates.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut at = 0;
    while updates.len() > UPDATE_MANAGERS_MAX && at < updates.len() {
        let version = updates[at].api_version.clone();
        match updates[..at].iter().position(|older| older.api_version == version) {
            None => at += 1,
            Some(bucket) => {
                let newer = updates.remove(at);
                let bucket = &mut updates[bucket];
                bucket.manager = ANCIENT.to_owned();
                bucket.subresource = String::new();
                bucket.set = bucket.set.union(&newer.set);
                bucket.time = newer.time;
            }
        }
    }
    entries.extend(rest);
    entries.extend(updates);
}
