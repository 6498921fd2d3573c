//! Writing defaults into an object: a value goes in only where there is none. And reading fields by
//! dotted paths.
//!
//! Why "empty counts as none" for texts and zero for numbers: Go's structs cannot tell `""` from a
//! missing text, and upstream's defaults fill both.

use crate::object::{Map, Value, meta};

/// Sets a member that is missing, null or an empty text.
pub(super) fn fill(map: &mut Map, name: &str, value: impl Into<Value>) {
    match map.get_mut(name) {
        Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
        None => {}
    }
    map.insert(name.to_owned(), value.into());
}

/// The items of a member that is a list.
pub(super) fn list_mut<'a>(
    map: &'a mut Map,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// A member that is a map, made where it is missing.
pub(super) fn map_mut<'a>(map: &'a mut Map, name: &str) -> Option<&'a mut Map> {
    let value = map.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// A member that is a map, where it is there.
pub(super) fn child_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map> {
    path.iter().try_fold(value, |value, step| value.get_mut(step))?.as_object_mut()
}

/// The values of fields that a selector may name, by their dotted paths.
pub(super) fn selectable(
    object: &Value,
    names: &'static [&'static str],
) -> Vec<(&'static str, String)> {
    let text = |path: &str| {
        let steps: Vec<&str> = path.split('.').collect();
        match meta::at(object, &steps) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    };
    names.iter().map(|name| (*name, text(name))).collect()
}
