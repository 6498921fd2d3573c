//! Deployment.
//!
//! Why its selector may not change: the ReplicaSets it made would be lost to it.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, containers, number, selector, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, map_mut};
use super::super::podspec::workload;
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::Value;
use crate::object::status::FieldError;

/// The Deployment's strategy.
pub(in super::super) struct Deployment;

const COUNTERS: &[&str] = &["updatedReplicas", "readyReplicas", "availableReplicas"];
const OTHER_COUNTERS: &[&str] = &["unavailableReplicas", "terminatingReplicas", "collisionCount"];

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = map_mut(spec, "strategy") else { return };
        fill(strategy, "type", "RollingUpdate");
        if strategy.get("type") == Some(&json!("RollingUpdate"))
            && let Some(rolling) = map_mut(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({});
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
            let text = "cannot be greater than readyReplicas";
            workload::counters(&status, COUNTERS, OTHER_COUNTERS, text, &mut out);
            workload::collisions(&status, old, &mut out);
            return out;
        }
        validate_spec(&root.get("spec"), &mut out);
        validate::immutable_at(new, old, &["spec", "selector"], &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Ready"),
            col("Up-to-date"),
            col("Available"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |path: &[&str]| number(object, path);
        let (ready, wanted) = (count(&["status", "readyReplicas"]), count(&["spec", "replicas"]));
        let [names, images] = containers(object, &["spec", "template", "spec"]);
        vec![
            format!("{ready}/{wanted}").into(),
            count(&["status", "updatedReplicas"]).into(),
            count(&["status", "availableReplicas"]).into(),
            age(object, now).into(),
            names,
            images,
            selector(object, &["spec", "selector"]),
        ]
    }
}

fn validate_spec(spec: &Field, out: &mut Errors) {
    validate::non_negative(&spec.get("replicas"), out);
    workload::selector(spec, "deployment", out);
    workload::template(spec, "ReplicaSet", out);
    strategy(&spec.get("strategy"), out);
    let numbers = ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    validate::all_non_negative(spec, &numbers, out);
    let deadline = spec.get("progressDeadlineSeconds");
    let ready = spec.get("minReadySeconds").int().unwrap_or(0);
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        out.push(deadline.invalid("must be greater than minReadySeconds"));
    }
}

fn strategy(strategy: &Field, out: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                out.push(rolling.forbidden(why));
            }
        }
        "RollingUpdate" if !rolling.is_set() => {
            out.push(rolling.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            validate::int_or_percent(&unavailable, out);
            validate::int_or_percent(&surge, out);
            let zero = |field: &Field| validate::int_or_percent_number(field) == 0;
            if zero(&unavailable) && zero(&surge) {
                out.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            validate::at_most_100_percent(&unavailable, out);
        }
        _ => out.push(strategy.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};

    fn deployment(spec: Value) -> Value {
        let mut all = json!({
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                         "spec": {"containers": [{"name": "c", "image": "i"}]}},
        });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created(&Deployment, json!({"metadata": {"name": "d"}, "spec": all}))
    }

    #[test]
    fn defaults_are_upstreams() {
        let made = deployment(json!({}));
        assert_eq!(errors_of_create(&Deployment, &made), Vec::<String>::new());
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(
            made["spec"]["strategy"],
            json!({"type": "RollingUpdate",
                   "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let template = &made["spec"]["template"]["spec"];
        assert_eq!(template["restartPolicy"], "Always");
        assert!(template.get("enableServiceLinks").is_none(), "only pods get it");
    }

    #[test]
    fn faults_are_told_in_upstreams_words() {
        for (spec, fault) in [
            (json!({"selector": null}), "spec.selector: Required value"),
            (
                json!({"selector": {"matchLabels": {"a": "c"}}}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not \
                 match template `labels`",
            ),
            (
                json!({"replicas": -1}),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 \
                 when `maxSurge` is 0",
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy \
                 `type` is 'Recreate'",
            ),
        ] {
            let texts = errors_of_create(&Deployment, &deployment(spec));
            assert!(texts.iter().any(|text| text == fault), "{fault}\nfound {texts:#?}");
        }
    }

    #[test]
    fn the_selector_stays() {
        let old = deployment(json!({}));
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["more"] = "x".into();
        new["spec"]["template"]["metadata"]["labels"]["more"] = "x".into();
        let texts = errors_of_update(&Deployment, "", &new, &old);
        assert_eq!(
            texts,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"more\":\"x\"}}: \
                 field is immutable"]
        );
    }
}
