//! What must hold of `metadata`, whatever the kind, in upstream's words
//! (apimachinery `api/validation/objectmeta.go`).
//!
//! Why apart from kinds: clients and controllers rely on these rules for every object alike.

use std::collections::BTreeSet;

use super::kind::Kind;
use crate::object::selector::{is_label_value, is_qualified_name};
use crate::object::status::FieldError;
use crate::object::{GroupVersion, Value, meta};
use crate::stdx::limits::ANNOTATIONS_BYTES_MAX;

/// The finalizer of an orphaning delete.
pub const ORPHAN: &str = "orphan";
/// The finalizer of a foreground delete.
pub const FOREGROUND: &str = "foregroundDeletion";

/// What a label's key, an annotation's key and a finalizer must look like.
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Faults of a new object's metadata.
pub fn validate_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(fault) = path_fault(name).or_else(|| kind.strategy.check_name(name)) {
        errors.push(FieldError::invalid("metadata.name", name, fault));
    }
    let namespace = meta::namespace(object);
    if kind.namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else if !crate::object::selector::is_dns_label(namespace) {
            errors.push(FieldError::invalid("metadata.namespace", namespace, DNS_LABEL));
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    common(object, &mut errors);
    let finalizers = meta::finalizers(object);
    for finalizer in &finalizers {
        if !is_qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", *finalizer, QUALIFIED_NAME));
        }
    }
    if finalizers.contains(&ORPHAN) && finalizers.contains(&FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid("metadata.finalizers", as_list(&finalizers), why));
    }
    errors
}

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Names become path segments.
fn path_fault(name: &str) -> Option<String> {
    if name == "." || name == ".." {
        return Some(format!("may not be '{name}'"));
    }
    let bad = ['/', '%'].into_iter().find(|character| name.contains(*character))?;
    Some(format!("may not contain '{bad}'"))
}

fn as_list(texts: &[&str]) -> Value {
    texts.iter().map(|text| Value::from(*text)).collect()
}

/// Faults of a change of metadata.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if meta::is_deleting(old) {
        let before: BTreeSet<&str> = meta::finalizers(old).into_iter().collect();
        let after: BTreeSet<&str> = meta::finalizers(new).into_iter().collect();
        let added: Vec<String> = after.difference(&before).map(|one| format!("{one:?}")).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", why));
        }
    }
    let fields = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"];
    for field in fields.into_iter().chain(["deletionGracePeriodSeconds"]) {
        let at = |object| meta::at(object, &["metadata", field]).cloned().unwrap_or(Value::Null);
        let (after, before) = (at(new), at(old));
        if after != before {
            let path = format!("metadata.{field}");
            errors.push(FieldError::invalid(path, after, "field is immutable"));
        }
    }
    common(new, &mut errors);
    errors
}

fn common(object: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in meta::labels(object).into_iter().flatten() {
        let value = value.as_str().unwrap_or("");
        if !is_qualified_name(key) {
            let fault = long_name(key).unwrap_or(QUALIFIED_NAME);
            errors.push(FieldError::invalid("metadata.labels", key.as_str(), fault));
        }
        if value.len() > 63 {
            let fault = "must be no more than 63 bytes";
            errors.push(FieldError::invalid("metadata.labels", value, fault));
        } else if !is_label_value(value) {
            errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    let mut size = 0;
    for (key, value) in meta::annotations(object).into_iter().flatten() {
        if !is_qualified_name(&key.to_lowercase()) {
            let fault = long_name(key).unwrap_or(QUALIFIED_NAME);
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), fault));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
    owner_references(object, errors);
}

fn long_name(key: &str) -> Option<&'static str> {
    let name = key.rsplit('/').next().unwrap_or(key);
    (name.len() > 63).then_some("name part must be no more than 63 bytes")
}

fn owner_references(object: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in meta::owners(object) {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
        let mut check = |field: &str, wrong: bool, why: &str| {
            if wrong {
                let path = format!("{PATH}.{field}");
                errors.push(FieldError::invalid(path, text(field), why));
            }
        };
        let version = GroupVersion::parse(&text("apiVersion"));
        check("apiVersion", version.is_none(), "version must not be empty");
        check("kind", text("kind").is_empty(), "must not be empty");
        check("name", text("name").is_empty(), "must not be empty");
        check("uid", text("uid").is_empty(), "must not be empty");
        if text("kind") == "Event" && text("apiVersion") == "v1" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(PATH, owner.clone(), why));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in \
                         references for {first} and {this}"
                    );
                    let all = meta::at(object, &["metadata", "ownerReferences"]);
                    errors.push(FieldError::invalid(PATH, all.cloned().unwrap_or_default(), why));
                }
            }
        }
    }
}

/// Removes repeated owner references; the uids that were repeated.
pub fn dedup_owners(object: &mut Value) -> Vec<String> {
    let list = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(list) = list.and_then(Value::as_array_mut) else { return Vec::new() };
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    let mut repeated = Vec::new();
    for owner in list.drain(..) {
        if kept.contains(&owner) {
            repeated.push(owner["uid"].as_str().unwrap_or("").to_owned());
        } else {
            kept.push(owner);
        }
    }
    *list = kept;
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_may_not_change_is_named() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "finalizers": ["x/y"],
            "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let mut new = old.clone();
        new["metadata"]["uid"] = json!("2");
        new["metadata"]["finalizers"] = json!(["x/y", "x/z"]);
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being \
             deleted, found new finalizers []string{\"x/z\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
        assert!(validate_update(&old, &old).is_empty());
    }

    #[test]
    fn owners_must_be_whole_and_only_one_controls() {
        let owner = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name,
            "controller": true})
        };
        let object = json!({"metadata": {"ownerReferences": [owner("a"), owner("b"),
            {"kind": "Pod", "name": "c", "uid": "c"}]}});
        let mut errors = Vec::new();
        owner_references(&object, &mut errors);
        let found = texts(&errors);
        assert!(found[0].ends_with("references for Pod/a and Pod/b"), "{found:?}");
        assert_eq!(
            found[1],
            "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty"
        );
    }

    #[test]
    fn repeated_owners_are_dropped_once_named() {
        let mut object = json!({"metadata": {"ownerReferences": [{"uid": "a"}, {"uid": "a"}]}});
        assert_eq!(dedup_owners(&mut object), ["a"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([{"uid": "a"}]));
    }
}
