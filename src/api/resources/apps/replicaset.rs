//! ReplicaSet.
//!
//! Why so like a ReplicationController: it is one with a set-based selector.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, containers, int, number, selector, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::podspec::workload;
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::Value;
use crate::object::status::FieldError;

/// The ReplicaSet's strategy.
pub(in super::super) struct ReplicaSet;

/// Counters of which none exceeds `status.replicas`.
pub(in super::super) const COUNTERS: &[&str] =
    &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
/// Columns of a ReplicaSet and of a ReplicationController.
pub(in super::super) const COLUMNS: &[Column] = &[
    int("Desired"),
    int("Current"),
    int("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        if let Some(spec) = child_mut(object, &["spec"]) {
            fill(spec, "replicas", 1);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "replicas": 0 });
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        validate_spec(&Field::root(object).get("spec"), &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(new);
        if write.subresource == "status" {
            let text = "cannot be greater than readyReplicas";
            let others = ["terminatingReplicas"];
            workload::counters(&root.get("status"), COUNTERS, &others, text, &mut out);
            return out;
        }
        validate_spec(&root.get("spec"), &mut out);
        validate::immutable_at(new, old, &["spec", "selector"], &mut out);
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", number(object, &["status", "replicas"]).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now, selector(object, &["spec", "selector"]))
    }
}

/// The cells of [`COLUMNS`].
pub(in super::super) fn cells(object: &Value, now: Timestamp, selector: Value) -> Vec<Value> {
    let [names, images] = containers(object, &["spec", "template", "spec"]);
    vec![
        number(object, &["spec", "replicas"]).into(),
        number(object, &["status", "replicas"]).into(),
        number(object, &["status", "readyReplicas"]).into(),
        age(object, now).into(),
        names,
        images,
        selector,
    ]
}

fn validate_spec(spec: &Field, out: &mut Errors) {
    validate::all_non_negative(spec, &["replicas", "minReadySeconds"], out);
    // Upstream says "deployment" here too.
    workload::selector(spec, "deployment", out);
    workload::template(spec, "ReplicaSet", out);
}
