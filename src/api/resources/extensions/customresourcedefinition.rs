//! CustomResourceDefinition.
//!
//! Schemas are stored unread: custom resources are not served yet (the write says so in a warning).

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{col, list};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, map_mut};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The CustomResourceDefinition's strategy.
pub(in super::super) struct CustomResourceDefinition;

fn storage_version(object: &Value) -> Option<&str> {
    let versions = list(object, &["spec", "versions"]).iter();
    let mut stored = versions.filter(|one| one.get("storage") == Some(&Value::Bool(true)));
    stored.next().map(|one| meta::text(one, &["name"]))
}

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let kind = meta::text(object, &["spec", "names", "kind"]).to_owned();
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        if let Some(conversion) = map_mut(spec, "conversion") {
            fill(conversion, "strategy", "None");
        }
        if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut)
            && !kind.is_empty()
        {
            fill(names, "singular", kind.to_lowercase());
            fill(names, "listKind", format!("{kind}List"));
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        let stored: Vec<&str> = storage_version(object).into_iter().collect();
        let status = json!({
            "conditions": [],
            "acceptedNames": { "plural": "", "kind": "" },
            "storedVersions": stored,
        });
        object["status"] = status;
    }

    fn prepare_update(&self, _write: &Write<'_>, new: &mut Value, _old: &Value) {
        // A version that becomes the stored one is remembered until its objects are rewritten.
        let Some(version) = storage_version(new).map(Value::from) else { return };
        let place = meta::at_mut(new, &["status", "storedVersions"]);
        if let Some(list) = place.and_then(Value::as_array_mut)
            && !list.contains(&version)
        {
            list.push(version);
        }
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(object, &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource == "status" {
            return out;
        }
        check(new, &mut out);
        for path in [["spec", "group"], ["spec", "scope"]] {
            validate::immutable_at(new, old, &path, &mut out);
        }
        for name in ["plural", "kind"] {
            validate::immutable_at(new, old, &["spec", "names", name], &mut out);
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("Created At")];
        COLUMNS
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![meta::text(object, &["metadata", "creationTimestamp"]).into()]
    }
}

fn check(object: &Value, out: &mut Errors) {
    let root = Field::root(object);
    let spec = root.get("spec");
    let (group, own) = (spec.get("group"), spec.get("names"));
    let expected = format!("{}.{}", own.get("plural").text(), group.text());
    if meta::name(object) != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        out.push(FieldError::invalid("metadata.name", meta::name(object), why));
    }
    validate::required_format(&group, names::dns_subdomain, out);
    if !group.text().is_empty() && !group.text().contains('.') {
        out.push(group.invalid("should be a domain with at least one dot"));
    }
    validate::one_of(&spec.get("scope"), &["Cluster", "Namespaced"], out);
    for name in ["plural", "singular"] {
        validate::required_format(&own.get(name), names::dns_1035_label, out);
    }
    for name in ["kind", "listKind"] {
        let field = own.get(name);
        validate::required(&field, out);
        for fault in names::dns_1035_label(&field.text().to_lowercase()) {
            if !field.text().is_empty() {
                out.push(
                    field.invalid(format!(
                        "may have mixed case, but should otherwise match: {fault}"
                    )),
                );
            }
        }
    }
    if !own.get("kind").text().is_empty() && own.get("kind").text() == own.get("listKind").text() {
        let kind = own.get("listKind");
        out.push(kind.invalid("kind and listKind may not be the same"));
    }
    versions(&spec, out);
}

fn versions(spec: &Field, out: &mut Errors) {
    let list = spec.get("versions");
    let mut stored = 0;
    for (at, version) in list.items().enumerate() {
        let name = version.get("name");
        validate::format(&name, names::dns_1035_label, out);
        if list.items().take(at).any(|other| other.get("name").text() == name.text()) {
            out.push(list.invalid("must contain unique version names"));
        }
        stored += usize::from(version.get("storage").flag());
        let schema = version.get("schema");
        if !schema.get("openAPIV3Schema").is_set() {
            out.push(schema.get("openAPIV3Schema").required("schemas are required"));
        }
    }
    if list.is_empty() {
        out.push(list.required("must have exactly one version marked as storage version"));
    } else if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        out.push(list.invalid(why));
    }
}
