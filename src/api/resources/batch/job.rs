//! Job.
//!
//! Why it writes its own selector: pods of two Jobs must never match both, and a user who is not
//! asked cannot get it wrong.

mod spec;
mod status;

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, condition, containers, number, selector, since, wide};
use super::super::field::Errors;
use super::super::fill::{child_mut, fill, list_mut};
use super::super::podspec::workload;
use crate::api::kind::{Column, Strategy, Write, age, human_duration};
use crate::client::Propagation;
use crate::object::status::FieldError;
use crate::object::{Map, Value, meta};

pub(super) use spec::check_template_spec;

/// The Job's strategy.
pub(in super::super) struct Job;

/// Labels of the pods with the Job's uid, and with its name.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// Failures of pods that a Job stands by default.
const BACKOFF_LIMIT: i64 = 6;

/// Defaults of a JobSpec.
pub(super) fn default_spec(spec: &mut Map) {
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
    fill(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { BACKOFF_LIMIT });
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let policy = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
    fill(spec, "podReplacementPolicy", if policy { "Failed" } else { "TerminatingOrFailed" });
    default_failure_policy(spec);
}

/// Defaults of a JobSpec that a CronJob's template gets too.
pub(super) fn default_failure_policy(spec: &mut Map) {
    let Some(policy) = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut) else {
        return;
    };
    for rule in list_mut(policy, "rules").filter_map(Value::as_object_mut) {
        for pattern in list_mut(rule, "onPodConditions").filter_map(Value::as_object_mut) {
            fill(pattern, "status", "True");
        }
    }
}

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        let labels = meta::at(object, &["spec", "template", "metadata", "labels"]).cloned();
        let own = meta::labels(object).is_none_or(Map::is_empty);
        if let Some(labels) = labels.filter(|labels| own && labels.is_object()) {
            meta::set(object, &["metadata", "labels"], labels);
        }
        if let Some(spec) = child_mut(object, &["spec"]) {
            default_spec(spec);
            fill(spec, "manualSelector", false);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({});
        if meta::at(object, &["spec", "manualSelector"]) == Some(&Value::Bool(true)) {
            return;
        }
        let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
        let labels = ["spec", "template", "metadata", "labels"];
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                insert(object, &labels, key, value);
            }
        }
        insert(object, &["spec", "selector", "matchLabels"], UID_LABELS[1], &uid);
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        spec::check(object, true, &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource == "status" {
            status::check(new, old, &mut out);
        } else {
            let labels = ["spec", "template", "metadata", "labels"];
            let labels = meta::at(old, &labels).unwrap_or(&Value::Null);
            let prefixed = [UID_LABELS[1], NAME_LABELS[1]];
            spec::check(new, prefixed.iter().all(|key| labels.get(key).is_some()), &mut out);
            spec::check_update(new, old, &mut out);
        }
        out
    }

    fn default_propagation(&self) -> Option<Propagation> {
        Some(Propagation::Orphan)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", number(object, &["status", "succeeded"]).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Status"),
            col("Completions"),
            col("Duration"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(object, &["spec", "template", "spec"]);
        vec![
            state(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            age(object, now).into(),
            names,
            images,
            selector(object, &["spec", "selector"]),
        ]
    }
}

fn insert(object: &mut Value, path: &[&str], key: &str, value: &str) {
    if let Some(place) = meta::at_mut(object, path) {
        if place.is_null() {
            *place = json!({});
        }
        if let Some(map) = place.as_object_mut() {
            map.entry(key).or_insert_with(|| value.into());
        }
    }
}

fn state(object: &Value) -> &'static str {
    let is = |kind: &str| condition(object, kind) == "True";
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if meta::is_deleting(object) => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(object: &Value) -> String {
    let succeeded = number(object, &["status", "succeeded"]);
    let parallelism = number(object, &["spec", "parallelism"]);
    match meta::at(object, &["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn duration(object: &Value, now: Timestamp) -> String {
    let time = |name: &str| crate::object::time::parse(meta::text(object, &["status", name]));
    match (time("startTime"), time("completionTime")) {
        (Some(start), Some(end)) => human_duration(end.as_second() - start.as_second()),
        (Some(_), None) => since(object, &["status", "startTime"], now).unwrap_or_default(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};

    fn job(spec: Value) -> Value {
        let mut all = json!({"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created(&Job, json!({"metadata": {"name": "j", "uid": "u1"}, "spec": all}))
    }

    #[test]
    fn a_job_selects_its_own_pods() {
        let made = job(json!({}));
        let spec = &made["spec"];
        assert_eq!(
            spec["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}})
        );
        assert_eq!(
            spec["template"]["metadata"]["labels"],
            json!({
                "batch.kubernetes.io/controller-uid": "u1", "controller-uid": "u1",
                "batch.kubernetes.io/job-name": "j", "job-name": "j",
            })
        );
        assert_eq!(spec["backoffLimit"], 6);
        assert_eq!(spec["completions"], 1);
        assert_eq!(errors_of_create(&Job, &made), Vec::<String>::new());
    }

    #[test]
    fn faults_are_told_in_upstreams_words() {
        for (spec, fault) in [
            (
                json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
                 \"Never\"",
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 1}),
                "spec.completions: Required value: when completion mode is Indexed",
            ),
            (
                json!({"backoffLimit": -1}),
                "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            ),
            (json!({"manualSelector": true}), "spec.selector: Required value"),
        ] {
            let texts = errors_of_create(&Job, &job(spec));
            assert!(texts.iter().any(|text| text == fault), "{fault}\nfound {texts:#?}");
        }
    }

    #[test]
    fn what_pods_were_made_by_stays() {
        let old = job(json!({}));
        let mut new = old.clone();
        new["spec"]["parallelism"] = 2.into();
        assert_eq!(errors_of_update(&Job, "", &new, &old), Vec::<String>::new());
        new["spec"]["completions"] = 3.into();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "x".into();
        let texts = errors_of_update(&Job, "", &new, &old);
        assert_eq!(texts[0], "spec.completions: Invalid value: 3: field is immutable");
        assert!(texts[1].ends_with(": field is immutable"), "{texts:?}");
        assert!(texts[1].starts_with("spec.template: Invalid value: {"), "{texts:?}");
    }

    #[test]
    fn an_end_is_not_undone() {
        let mut old = job(json!({}));
        old["status"] = json!({"startTime": "2026-01-01T00:00:00Z", "failed": 2, "conditions": [
            {"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}]});
        let mut new = old.clone();
        new["status"] = json!({"startTime": "2026-01-01T00:00:00Z", "failed": 1});
        let texts = errors_of_update(&Job, "status", &new, &old);
        for fault in [
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
        ] {
            assert!(texts.iter().any(|text| text == fault), "{fault}\nfound {texts:#?}");
        }
        assert_eq!(state(&old), "Failed");
        assert_eq!(completions(&old), "0/1");
    }
}
