//! Reading and writing `metadata` of an untyped object.
//!
//! Why free functions: an object is a plain value; a wrapper type would have to be unwrapped at
//! each border.

use super::{GroupVersion, Gvk, Map, Value};

/// The text at `path` below `object`, or "".
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The value at `path` below `object`.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step))
}

/// The value at `path`, made of empty maps where it is missing. `None` when a step is not a map.
pub fn at_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let mut value = object;
    for step in path {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        value = value.as_object_mut()?.entry(*step).or_insert(Value::Null);
    }
    Some(value)
}

/// Sets the value at `path`; does nothing where a step is not a map.
pub fn set(object: &mut Value, path: &[&str], to: impl Into<Value>) {
    if let Some(place) = at_mut(object, path) {
        *place = to.into();
    }
}

/// Removes the value at `path` and returns it.
pub fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, above) = path.split_last()?;
    let mut value = object;
    for step in above {
        value = value.get_mut(step)?;
    }
    value.as_object_mut()?.remove(*last)
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, "" for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.resourceVersion`.
pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// `metadata.generation`, 0 when absent.
pub fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether `metadata.deletionTimestamp` is set.
pub fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|value| !value.is_null())
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map> {
    at(object, &["metadata", "labels"])?.as_object()
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> Option<&Map> {
    at(object, &["metadata", "annotations"])?.as_object()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    at(object, &["metadata", "finalizers"])
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// `metadata.ownerReferences`.
pub fn owners(object: &Value) -> &[Value] {
    at(object, &["metadata", "ownerReferences"])
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The owner that has `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owners(object).iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

/// `apiVersion` and `kind`, when both are there.
pub fn gvk(object: &Value) -> Option<Gvk> {
    let group_version = GroupVersion::parse(object.get("apiVersion")?.as_str()?)?;
    let kind = object.get("kind")?.as_str()?;
    Some(Gvk::new(group_version.group, group_version.version, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes_nested_values() {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
        set(&mut object, &["metadata", "name"], "web");
        assert_eq!(name(&object), "web");
        assert_eq!(gvk(&object).unwrap(), Gvk::new("apps", "v1", "Deployment"));
        assert_eq!(remove(&mut object, &["metadata", "name"]), Some(json!("web")));
        assert_eq!(name(&object), "");
        assert!(!is_deleting(&json!({"metadata": {"deletionTimestamp": null}})));
    }

    #[test]
    fn a_path_through_a_scalar_is_refused() {
        let mut object = json!({"metadata": 3});
        set(&mut object, &["metadata", "name"], "web");
        assert_eq!(object, json!({"metadata": 3}));
    }
}
