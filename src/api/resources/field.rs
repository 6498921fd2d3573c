//! A cursor over an object that knows the path it took.
//!
//! Why linked steps: validation visits every field of every write, and only a fault needs the
//! path's text; so a step is a few words on the stack and the text is made when an error is.

use std::fmt::Write as _;

use crate::object::Value;
use crate::object::status::FieldError;

/// The faults that a check has found so far.
pub(super) type Errors = Vec<FieldError>;

static NULL: Value = Value::Null;

#[derive(Clone, Copy)]
enum Step<'p> {
    Name(&'p str),
    Index(usize),
    Key(&'p str),
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Field<'p, 'v> {
    above: Option<&'p Field<'p, 'v>>,
    step: Step<'p>,
    value: &'v Value,
}

impl<'p, 'v> Field<'p, 'v> {
    /// The top of an object; its path is empty.
    pub(super) fn root(value: &'v Value) -> Self {
        Self { above: None, step: Step::Name(""), value }
    }

    /// A member, null where it is missing.
    pub(super) fn get<'q>(&'q self, name: &'q str) -> Field<'q, 'v> {
        let value = self.value.get(name).unwrap_or(&NULL);
        Field { above: Some(self), step: Step::Name(name), value }
    }

    /// A member under another name than the one it has in paths.
    pub(super) fn named<'q>(&'q self, name: &'q str, value: &'v Value) -> Field<'q, 'v> {
        Field { above: Some(self), step: Step::Name(name), value }
    }

    /// A map's value; the path shows `[key]`.
    pub(super) fn key<'q>(&'q self, key: &'q str) -> Field<'q, 'v> {
        let value = self.value.get(key).unwrap_or(&NULL);
        Field { above: Some(self), step: Step::Key(key), value }
    }

    /// An item of a list.
    pub(super) fn index(&self, at: usize) -> Field<'_, 'v> {
        let value = self.value.get(at).unwrap_or(&NULL);
        Field { above: Some(self), step: Step::Index(at), value }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> impl Iterator<Item = Field<'_, 'v>> {
        let list = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(|(at, value)| Field {
            above: Some(self),
            step: Step::Index(at),
            value,
        })
    }

    /// The members of a map with their keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'v str, Field<'_, 'v>)> {
        self.value.as_object().into_iter().flatten().map(|(key, value)| {
            (key.as_str(), Field { above: Some(self), step: Step::Key(key.as_str()), value })
        })
    }

    /// The value.
    pub(super) fn value(&self) -> &'v Value {
        self.value
    }

    /// Is it there at all?
    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Missing, or the empty value of its type.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// The text, "" where there is none.
    pub(super) fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or("")
    }

    /// The whole number.
    pub(super) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Is it `true`?
    pub(super) fn flag(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// How many items or members it has.
    pub(super) fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// The path as error texts show it.
    pub(super) fn path(&self) -> String {
        let mut text = self.above.map(Field::path).unwrap_or_default();
        match self.step {
            Step::Name("") => {}
            Step::Name(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Index(at) => {
                let _ = write!(text, "[{at}]");
            }
            Step::Key(key) => {
                let _ = write!(text, "[{key}]");
            }
        }
        text
    }

    /// "Required value".
    pub(super) fn required(&self, detail: &str) -> FieldError {
        FieldError::required(self.path(), detail)
    }

    /// "Invalid value" with the value shown.
    pub(super) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(self.path(), self.value.clone(), detail)
    }

    /// "Invalid value" that shows another value.
    pub(super) fn invalid_as(
        &self,
        shown: impl Into<Value>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError::invalid(self.path(), shown, detail)
    }

    /// "Invalid value" that shows none (upstream's `OmitValueType`).
    pub(super) fn invalid_omitting_value(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid_omitting_value(self.path(), detail)
    }

    /// "Duplicate value".
    pub(super) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(self.path(), self.value.clone())
    }

    /// "Unsupported value" with the values that are.
    pub(super) fn not_supported(&self, allowed: &[&str]) -> FieldError {
        FieldError::not_supported(self.path(), self.value.clone(), allowed)
    }

    /// "Forbidden".
    pub(super) fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.path(), detail)
    }

    /// "Too long".
    pub(super) fn too_long(&self, max: usize) -> FieldError {
        FieldError::too_long(self.path(), max)
    }

    /// "Too many".
    pub(super) fn too_many(&self, max: usize) -> FieldError {
        FieldError::too_many(self.path(), self.len(), max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_reads_as_upstream_writes_it() {
        let object = json!({"spec": {"list": [{"map": {"a/b": 1}}]}});
        let root = Field::root(&object);
        let (spec, list) = (root.get("spec"), root.get("spec"));
        let list = list.get("list");
        let item = list.items().next().unwrap();
        let map = item.get("map");
        let (key, field) = map.entries().next().unwrap();
        assert_eq!((key, field.int()), ("a/b", Some(1)));
        assert_eq!(field.path(), "spec.list[0].map[a/b]");
        assert!(!spec.get("missing").is_set());
    }
}
