//! DaemonSet.
//!
//! Why it counts its template's changes apart: `spec.templateGeneration` is older than
//! `metadata.generation`, and clients still read it.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, containers, int, labels, number, selector, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, map_mut};
use super::super::podspec::{self, workload};
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The DaemonSet's strategy.
pub(in super::super) struct DaemonSet;

const COUNTERS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];
const ANNOTATION: &str = "deprecated.daemonset.template.generation";

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "revisionHistoryLimit", 10);
        let Some(strategy) = map_mut(spec, "updateStrategy") else { return };
        fill(strategy, "type", "RollingUpdate");
        if strategy.get("type") == Some(&json!("RollingUpdate"))
            && let Some(rolling) = map_mut(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        });
        meta::set(object, &["metadata", "annotations", ANNOTATION], "1");
    }

    fn prepare_update(&self, _write: &Write<'_>, new: &mut Value, old: &Value) {
        let before = meta::text(old, &["metadata", "annotations", ANNOTATION]);
        let mut generation: i64 = before.parse().unwrap_or(1);
        let template =
            |object: &Value| meta::at(object, &["spec", "template"]).cloned().unwrap_or_default();
        if !validate::same(&template(new), &template(old)) {
            generation += 1;
        }
        meta::set(new, &["metadata", "annotations", ANNOTATION], generation.to_string());
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
            let status = root.get("status");
            validate::all_non_negative(&status, COUNTERS, &mut out);
            workload::collisions(&status, old, &mut out);
            return out;
        }
        validate::immutable_at(new, old, &["spec", "selector"], &mut out);
        validate_spec(&root.get("spec"), &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            int("Desired"),
            int("Current"),
            int("Ready"),
            int("Up-to-date"),
            int("Available"),
            col("Node Selector"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |name: &str| Value::from(number(object, &["status", name]));
        let nodes = meta::at(object, &["spec", "template", "spec", "nodeSelector"]);
        let [names, images] = containers(object, &["spec", "template", "spec"]);
        vec![
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            labels(nodes.and_then(Value::as_object)).into(),
            age(object, now).into(),
            names,
            images,
            selector(object, &["spec", "selector"]),
        ]
    }
}

fn validate_spec(spec: &Field, out: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    validate::label_selector(&selector, out);
    validate::selector_matches(&selector, &template, out);
    if selector.is_set() && validate::selects_everything(&selector) {
        out.push(selector.invalid("empty selector is invalid for daemonset"));
    }
    podspec::template(&template, out);
    workload::runs_for_good(&template, "DaemonSet", out);
    validate::all_non_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], out);
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling(&strategy.get("rollingUpdate"), out),
        _ => out.push(strategy.not_supported(&["RollingUpdate", "OnDelete"])),
    }
}

fn rolling(rolling: &Field, out: &mut Errors) {
    if !rolling.is_set() {
        out.push(rolling.required(""));
        return;
    }
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for field in [&unavailable, &surge] {
        validate::int_or_percent(field, out);
    }
    for field in [&unavailable, &surge] {
        validate::at_most_100_percent(field, out);
    }
    let set = |field: &Field| validate::int_or_percent_number(field) != 0;
    match (set(&unavailable), set(&surge)) {
        (true, true) => {
            out.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
        }
        (false, false) => out.push(unavailable.required("cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}
