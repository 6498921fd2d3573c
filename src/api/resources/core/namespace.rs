//! Namespace.
//!
//! Why finalizers in its spec: they are older than `metadata.finalizers`, and a namespace goes only
//! when the controller has emptied it and taken its own away through `finalize`.

use serde_json::json;

use jiff::Timestamp;

use super::super::columns::{AGE, col};
use super::super::field::{Errors, Field};
use super::super::names;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The Namespace's strategy.
pub(in super::super) struct Namespace;

/// The finalizer of the namespace controller.
const KUBERNETES: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = meta::name(object).to_owned();
        if !name.is_empty() {
            meta::set(object, &["metadata", "labels", NAME_LABEL], name);
        }
        if meta::text(object, &["status", "phase"]).is_empty() {
            meta::set(object, &["status", "phase"], "Active");
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "phase": "Active" });
        let finalizers = ["spec", "finalizers"];
        let mut list =
            meta::at(object, &finalizers).and_then(Value::as_array).cloned().unwrap_or_default();
        if !list.iter().any(|finalizer| finalizer == KUBERNETES) {
            list.push(KUBERNETES.into());
        }
        meta::set(object, &finalizers, list);
    }

    fn prepare_update(&self, write: &Write<'_>, new: &mut Value, old: &Value) {
        let from = if write.subresource == "finalize" { &*new } else { old };
        let finalizers = meta::at(from, &["spec", "finalizers"]).cloned();
        meta::set(new, &["spec"], old.get("spec").cloned().unwrap_or_default());
        match finalizers {
            Some(list) => meta::set(new, &["spec", "finalizers"], list),
            None => drop(meta::remove(new, &["spec", "finalizers"])),
        }
    }

    fn prepare_delete(&self, _write: &Write<'_>, object: &mut Value) {
        meta::set(object, &["status", "phase"], "Terminating");
    }

    fn may_vanish(&self, object: &Value) -> bool {
        let finalizers = meta::at(object, &["spec", "finalizers"]);
        finalizers.and_then(Value::as_array).is_none_or(Vec::is_empty)
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        finalizers(object, false, &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource != "status" {
            finalizers(new, write.subresource == "finalize", &mut out);
            return out;
        }
        let phase = meta::text(new, &["status", "phase"]);
        let (right, when) = if meta::is_deleting(new) {
            ("Terminating", "is not empty")
        } else {
            ("Active", "is empty")
        };
        if phase != right {
            let why = format!("may only be '{right}' if `deletionTimestamp` {when}");
            out.push(FieldError::invalid("status.Phase", phase, why));
        }
        out
    }

    fn check_name(&self, name: &str) -> Option<String> {
        names::first(names::dns_label, name)
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("status.phase", meta::text(object, &["status", "phase"]).to_owned()),
            ("name", meta::name(object).to_owned()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("Status"), AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![meta::text(object, &["status", "phase"]).into(), age(object, now).into()]
    }
}

fn finalizers(object: &Value, indexed: bool, out: &mut Errors) {
    let root = Field::root(object);
    let spec = root.get("spec");
    let list = spec.get("finalizers");
    for item in list.items() {
        let at = if indexed { item } else { list };
        let name = item.text();
        names::qualified_name(name).into_iter().for_each(|fault| {
            out.push(at.invalid_as(name, fault));
        });
        let standard = [KUBERNETES, "orphan", "foregroundDeletion"].contains(&name);
        if !name.contains('/') && !standard {
            out.push(at.invalid_as(
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_update, updated};

    #[test]
    fn a_namespace_is_born_active_and_held_until_finalized() {
        let namespace = created(&Namespace, json!({"metadata": {"name": "n"}}));
        assert_eq!(
            namespace,
            json!({
                "metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
        let without = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        let plain = updated(&Namespace, "", without.clone(), &namespace);
        assert!(!Namespace.may_vanish(&plain), "a plain update keeps finalizers");
        let finalized = updated(&Namespace, "finalize", without, &namespace);
        assert!(Namespace.may_vanish(&finalized));
    }

    #[test]
    fn the_phase_follows_the_deletion() {
        let mut namespace = created(&Namespace, json!({"metadata": {"name": "n"}}));
        namespace["status"]["phase"] = "Terminating".into();
        assert_eq!(
            errors_of_update(&Namespace, "status", &namespace, &namespace),
            ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if \
              `deletionTimestamp` is empty"]
        );
    }
}
