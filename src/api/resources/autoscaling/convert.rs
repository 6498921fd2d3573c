//! HorizontalPodAutoscaler between v1 and v2.
//!
//! Why annotations: v1 has a field for one CPU target alone; what more a v2 object says must
//! survive a round trip through a v1 client (`pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::json;

use super::super::columns::list;
use crate::object::{Map, Value, meta};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Percent of the requested CPU that is aimed at when nothing is said.
pub(super) const DEFAULT_UTILIZATION: i64 = 80;

type Names = &'static [(&'static [&'static str], &'static str)];

/// Each source's members: the path in v2 and the name in v1.
const SOURCES: &[(&str, Names, Names)] = &[
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "averageValue"),
        ],
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    ("resource", RESOURCE_TARGET, RESOURCE_CURRENT),
    ("containerResource", RESOURCE_TARGET, RESOURCE_CURRENT),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
];
const RESOURCE_TARGET: Names = &[
    (&["name"], "name"),
    (&["container"], "container"),
    (&["target", "averageUtilization"], "targetAverageUtilization"),
    (&["target", "averageValue"], "targetAverageValue"),
];
const RESOURCE_CURRENT: Names = &[
    (&["name"], "name"),
    (&["container"], "container"),
    (&["current", "averageUtilization"], "currentAverageUtilization"),
    (&["current", "averageValue"], "currentAverageValue"),
];

/// A metric (its target, or with `current` its state) in v1's names.
fn metric_to_v1(metric: &Value, current: bool) -> Value {
    let mut out = json!({ "type": meta::text(metric, &["type"]) });
    for (source, target, now) in SOURCES {
        let Some(from) = metric.get(source) else { continue };
        for (path, name) in *(if current { now } else { target }) {
            if let Some(value) = meta::at(from, path) {
                meta::set(&mut out, &[source, name], value.clone());
            }
        }
    }
    out
}

fn metric_to_v2(metric: &Value, current: bool) -> Value {
    let mut out = json!({ "type": meta::text(metric, &["type"]) });
    for (source, target, now) in SOURCES {
        let Some(from) = metric.get(source) else { continue };
        for (path, name) in *(if current { now } else { target }) {
            if let Some(value) = from.get(name) {
                let path: Vec<&str> = [*source].into_iter().chain(path.iter().copied()).collect();
                meta::set(&mut out, &path, value.clone());
            }
        }
        if !current {
            let has = |name: &str| meta::at(&out, &[source, "target", name]).is_some();
            let kind = match (has("averageUtilization"), has("value") && !has("averageValue")) {
                (true, _) => "Utilization",
                (_, true) => "Value",
                _ => "AverageValue",
            };
            meta::set(&mut out, &[source, "target", "type"], kind);
        }
    }
    out
}

fn is_cpu_utilization(metric: &Value) -> bool {
    meta::text(metric, &["resource", "name"]) == "cpu"
        && meta::at(metric, &["resource", "target", "averageUtilization"]).is_some()
}

/// From v2 to v1.
pub(super) fn to_v1(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v1".into();
    let spec = object.get("spec").cloned().unwrap_or_default();
    let status = object.get("status").cloned().unwrap_or_default();
    let mut notes = Map::new();
    let (cpu, others): (Vec<&Value>, Vec<&Value>) =
        list(&spec, &["metrics"]).iter().partition(|metric| is_cpu_utilization(metric));
    let percent = cpu
        .last()
        .and_then(|cpu| meta::at(cpu, &["resource", "target", "averageUtilization"]).cloned());
    let mut note = |key: &str, value: Value| {
        notes.insert(key.to_owned(), value.to_string().into());
    };
    if !others.is_empty() {
        note(METRICS, others.iter().map(|metric| metric_to_v1(metric, false)).collect());
    }
    let current = list(&status, &["currentMetrics"]);
    if !current.is_empty() {
        note(CURRENT, current.iter().map(|metric| metric_to_v1(metric, true)).collect());
    }
    if let Some(behavior) = spec.get("behavior") {
        note(BEHAVIOR, behavior.clone());
    }
    if !list(&status, &["conditions"]).is_empty() {
        note(CONDITIONS, status["conditions"].clone());
    }
    let used = current.iter().find_map(|metric| {
        (meta::text(metric, &["resource", "name"]) == "cpu")
            .then(|| meta::at(metric, &["resource", "current", "averageUtilization"]).cloned())?
    });
    for path in [["spec", "metrics"], ["spec", "behavior"]] {
        meta::remove(&mut object, &path);
    }
    for path in [["status", "currentMetrics"], ["status", "conditions"]] {
        meta::remove(&mut object, &path);
    }
    if let Some(percent) = percent {
        meta::set(&mut object, &["spec", "targetCPUUtilizationPercentage"], percent);
    }
    if let Some(used) = used {
        meta::set(&mut object, &["status", "currentCPUUtilizationPercentage"], used);
    }
    drop_notes(&mut object);
    for (key, value) in notes {
        meta::set(&mut object, &["metadata", "annotations", &key], value);
    }
    object
}

/// From v1 to v2.
pub(super) fn to_v2(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v2".into();
    let note = |object: &Value, key: &str| -> Option<Value> {
        serde_json::from_str(meta::text(object, &["metadata", "annotations", key])).ok()
    };
    let read = |key: &str, current: bool| -> Vec<Value> {
        let metrics = note(&object, key).unwrap_or_default();
        list(&metrics, &[]).iter().map(|metric| metric_to_v2(metric, current)).collect()
    };
    let mut metrics = read(METRICS, false);
    let mut current = read(CURRENT, true);
    let (behavior, conditions) = (note(&object, BEHAVIOR), note(&object, CONDITIONS));
    let percent = meta::remove(&mut object, &["spec", "targetCPUUtilizationPercentage"]);
    let used = meta::remove(&mut object, &["status", "currentCPUUtilizationPercentage"]);
    if percent.is_some() || metrics.is_empty() {
        let percent = percent.unwrap_or_else(|| DEFAULT_UTILIZATION.into());
        metrics.push(cpu_metric(percent));
    }
    if let Some(used) = used.filter(|_| current.is_empty()) {
        current.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": used}}}));
    }
    meta::set(&mut object, &["spec", "metrics"], metrics);
    if let Some(behavior) = behavior.filter(Value::is_object) {
        meta::set(&mut object, &["spec", "behavior"], behavior);
    }
    if !current.is_empty() {
        meta::set(&mut object, &["status", "currentMetrics"], current);
    }
    if let Some(conditions) = conditions.filter(Value::is_array) {
        meta::set(&mut object, &["status", "conditions"], conditions);
    }
    drop_notes(&mut object);
    object
}

/// The metric that aims at a percentage of the requested CPU.
pub(super) fn cpu_metric(percent: Value) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn drop_notes(object: &mut Value) {
    for key in [METRICS, CURRENT, BEHAVIOR, CONDITIONS] {
        meta::remove(object, &["metadata", "annotations", key]);
    }
    if meta::annotations(object).is_some_and(Map::is_empty) {
        meta::remove(object, &["metadata", "annotations"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_in_annotations() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 3,
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 5}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "qps"},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    cpu_metric(50.into()),
                ],
            },
            "status": {"currentMetrics": [{"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": 7, "averageValue": "7m"}}}]},
        });
        let v1 = to_v1(v2.clone());
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 7);
        assert_eq!(to_v2(v1), v2);
    }

    #[test]
    fn a_bare_v1_object_aims_at_the_default() {
        let v2 = to_v2(json!({"spec": {"maxReplicas": 1}}));
        assert_eq!(v2["spec"]["metrics"], json!([cpu_metric(DEFAULT_UTILIZATION.into())]));
    }
}
