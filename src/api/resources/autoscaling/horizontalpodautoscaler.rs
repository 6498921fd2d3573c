//! HorizontalPodAutoscaler, in v1 and v2.
//!
//! Why checked as v2: that is what is stored, and v1 is a view of it.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, list, number};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::{names, validate};
use super::convert::{DEFAULT_UTILIZATION, cpu_metric, to_v1, to_v2};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::quantity::Quantity;
use crate::object::status::{FieldError, Result};
use crate::object::{Gvk, Map, Value, meta};

/// The HorizontalPodAutoscaler's strategy, for both versions.
pub(in super::super) struct HorizontalPodAutoscaler;

const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const STABILIZATION_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
/// Metrics that the table shows.
const SHOWN_MAX: usize = 2;

fn is_v1(object: &Value) -> bool {
    meta::text(object, &["apiVersion"]) == "autoscaling/v1"
}

fn as_v2(object: &Value) -> Cow<'_, Value> {
    if is_v1(object) { Cow::Owned(to_v2(object.clone())) } else { Cow::Borrowed(object) }
}

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let v1 = is_v1(object);
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "minReplicas", 1);
        if v1 {
            return;
        }
        if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let metric = cpu_metric(DEFAULT_UTILIZATION.into());
            spec.insert("metrics".to_owned(), json!([metric]));
        }
        let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else {
            return;
        };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        default_rules(behavior, "scaleUp", json!([pods, percent]));
        default_rules(behavior, "scaleDown", json!([percent]));
        if let Some(up) = behavior.get_mut("scaleUp").and_then(Value::as_object_mut) {
            fill(up, "stabilizationWindowSeconds", 0);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "currentReplicas": 0, "desiredReplicas": 0 });
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let object = as_v2(object);
        check(&Field::root(&object).get("spec"), &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        if write.subresource != "status" {
            return self.validate_create(write, new);
        }
        let mut out = Errors::new();
        let root = Field::root(new);
        let counters = ["currentReplicas", "desiredReplicas"];
        validate::all_non_negative(&root.get("status"), &counters, &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Reference"),
            col("Targets"),
            col("MinPods"),
            col("MaxPods"),
            col("Replicas"),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let object = as_v2(object);
        let target = |name: &str| meta::text(&object, &["spec", "scaleTargetRef", name]);
        let min = meta::at(&object, &["spec", "minReplicas"]).and_then(Value::as_i64);
        vec![
            format!("{}/{}", target("kind"), target("name")).into(),
            metrics(&object).into(),
            min.map_or("<unset>".to_owned(), |min| min.to_string()).into(),
            number(&object, &["spec", "maxReplicas"]).into(),
            number(&object, &["status", "currentReplicas"]).into(),
            age(&object, now).into(),
        ]
    }

    fn convert(&self, object: Value, to: &Gvk) -> Result<Value> {
        Ok(match (is_v1(&object), to.version.as_str()) {
            (true, "v2") => to_v2(object),
            (false, "v1") => to_v1(object),
            _ => object,
        })
    }
}

fn default_rules(behavior: &mut Map, direction: &str, policies: Value) {
    let rules = behavior.entry(direction).or_insert_with(|| json!({}));
    if let Some(rules) = rules.as_object_mut() {
        fill(rules, "selectPolicy", "Max");
        fill(rules, "policies", policies);
    }
}

fn check(spec: &Field, out: &mut Errors) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|min| min < 1) {
        out.push(min.invalid("must be greater than or equal to 1"));
    }
    match max.int().unwrap_or(0) {
        0 => out.push(max.required("must be set and greater than 0")),
        ..0 => out.push(max.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if min.int().is_some_and(|min| max.int().unwrap_or(0) < min) {
        let why = "must be greater than or equal to `minReplicas`";
        out.push(max.invalid_as(max.int().unwrap_or(0), why));
    }
    reference(&spec.get("scaleTargetRef"), out);
    spec.get("metrics").items().for_each(|one| metric(&one, out));
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.get("behavior");
        let rules = rules.get(direction);
        if rules.is_set() {
            scaling_rules(&rules, out);
        }
    }
}

fn reference(target: &Field, out: &mut Errors) {
    for name in ["kind", "name"] {
        validate::required_format(&target.get(name), names::path_segment, out);
    }
}

fn scaling_rules(rules: &Field, out: &mut Errors) {
    let (window, policies) = (rules.get("stabilizationWindowSeconds"), rules.get("policies"));
    if window.int().is_some_and(|seconds| seconds < 0) {
        out.push(window.invalid("must be greater than or equal to zero"));
    }
    let bounded = |field: &Field, max: i64, out: &mut Errors| {
        if field.int().is_some_and(|seconds| seconds > max) {
            out.push(field.invalid(format!("must be less than or equal to {max}")));
        }
    };
    bounded(&window, STABILIZATION_SECONDS_MAX, out);
    validate::optional_one_of(&rules.get("selectPolicy"), &["Disabled", "Max", "Min"], out);
    if policies.is_empty() {
        out.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        validate::optional_one_of(&policy.get("type"), &["Percent", "Pods"], out);
        for name in ["value", "periodSeconds"] {
            let field = policy.get(name);
            if field.int().unwrap_or(0) <= 0 {
                out.push(field.invalid_as(field.int().unwrap_or(0), validate::NOT_POSITIVE));
            }
        }
        bounded(&policy.get("periodSeconds"), PERIOD_SECONDS_MAX, out);
    }
    validate::quantity_non_negative(&rules.get("tolerance"), out);
}

fn metric(metric: &Field, out: &mut Errors) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        out.push(kind.required("must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    let Some(expected) = expected else {
        let allowed: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        out.push(FieldError::not_supported(kind.path(), kind.text(), &allowed));
        return;
    };
    let source = metric.get(expected);
    if source.is_set() {
        metric_source(expected, &source, out);
    } else {
        out.push(source.required("must populate information for the given metric source"));
    }
    for (_, other) in SOURCES.iter().filter(|(_, other)| *other != expected) {
        let other = metric.get(other);
        if other.is_set() {
            out.push(other.forbidden("must populate the given metric source only"));
        }
    }
}

fn metric_source(name: &str, source: &Field, out: &mut Errors) {
    let target = source.get("target");
    if name == "object" {
        reference(&source.get("describedObject"), out);
    }
    if name.ends_with("esource") {
        let resource = source.get("name");
        if resource.text().is_empty() {
            out.push(resource.required("must specify a resource name"));
        }
        if name == "containerResource" {
            validate::required_format(&source.get("container"), names::dns_label, out);
        }
    } else {
        let metric = source.get("metric");
        validate::required_format(&metric.get("name"), names::path_segment, out);
    }
    metric_target(&target, out);
    let has = |member: &str| target.get(member).is_set();
    match name {
        "pods" if !has("averageValue") => {
            let why = "must specify a positive target averageValue";
            out.push(target.get("averageValue").required(why));
        }
        "object" if !has("value") && !has("averageValue") => {
            let why = "must set either a target value or averageValue";
            out.push(target.get("averageValue").required(why));
        }
        "external" if has("value") == has("averageValue") => {
            if has("value") {
                let why = "may not set both a target value for metric and a per-pod target";
                out.push(target.get("value").forbidden(why));
            } else {
                let why = "must set either a target value for metric or a per-pod target";
                out.push(target.get("averageValue").required(why));
            }
        }
        "resource" | "containerResource" if has("averageUtilization") == has("averageValue") => {
            if has("averageValue") {
                let why = "may not set both a target raw value and a target utilization";
                out.push(target.get("averageValue").forbidden(why));
            } else {
                let why = "must set either a target raw value or a target utilization";
                out.push(target.get("averageUtilization").required(why));
            }
        }
        _ => {}
    }
}

fn metric_target(target: &Field, out: &mut Errors) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        out.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        out.push(kind.invalid_as(kind.text(), why));
    }
    for name in ["value", "averageValue"] {
        let field = target.get(name);
        if validate::quantity(field.value()).is_some_and(|amount| amount <= Quantity::ZERO) {
            out.push(field.invalid("must be positive"));
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        out.push(utilization.invalid("must be greater than 0"));
    }
}

fn metrics(object: &Value) -> String {
    let specs = list(object, &["spec", "metrics"]);
    let now = list(object, &["status", "currentMetrics"]);
    let shown: Vec<String> =
        specs.iter().enumerate().map(|(at, spec)| shown_metric(spec, now.get(at))).collect();
    match shown.len() {
        0 => "<none>".to_owned(),
        count if count > SHOWN_MAX => {
            format!("{} + {} more...", shown[..SHOWN_MAX].join(", "), count - SHOWN_MAX)
        }
        _ => shown.join(", "),
    }
}

fn shown_metric(spec: &Value, current: Option<&Value>) -> String {
    let kind = meta::text(spec, &["type"]);
    let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let target = |name: &str| meta::at(spec, &[source, "target", name]);
    let amount =
        |value: Option<&Value>| value.and_then(validate::quantity).map(|amount| amount.to_string());
    let now =
        |name: &str| current.and_then(|current| meta::at(current, &[source, "current", name]));
    let unknown = || "<unknown>".to_owned();
    let resource = source.ends_with("esource");
    let prefix = match resource {
        true => format!("{}: ", meta::text(spec, &[source, "name"])),
        false => String::new(),
    };
    if let Some(average) = amount(target("averageValue")) {
        let now = amount(now("averageValue")).unwrap_or_else(unknown);
        let suffix = if matches!(*source, "object" | "external") { " (avg)" } else { "" };
        return format!("{prefix}{now}/{average}{suffix}");
    }
    if resource {
        let percent =
            |value: Option<&Value>| value.and_then(Value::as_i64).map(|n| format!("{n}%"));
        let now = percent(now("averageUtilization")).unwrap_or_else(unknown);
        let wanted = percent(target("averageUtilization")).unwrap_or_else(|| "<auto>".to_owned());
        return format!("{prefix}{now}/{wanted}");
    }
    let now = amount(now("value")).unwrap_or_else(unknown);
    format!("{now}/{}", amount(target("value")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};

    #[test]
    fn both_versions_are_checked_alike() {
        let spec = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"},
                          "minReplicas": 5, "maxReplicas": 3});
        for version in ["v1", "v2"] {
            let made = created(
                &HorizontalPodAutoscaler,
                json!({"apiVersion": format!("autoscaling/{version}"), "spec": spec}),
            );
            assert_eq!(
                errors_of_create(&HorizontalPodAutoscaler, &made),
                ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to \
                  `minReplicas`"],
                "{version}"
            );
            let cells = HorizontalPodAutoscaler.cells(&made, Timestamp::UNIX_EPOCH);
            assert_eq!(cells[0], "Deployment/d");
            assert_eq!(cells[1], "cpu: <unknown>/80%");
        }
    }
}
