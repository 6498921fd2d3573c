//! CronJob.
//!
//! Why its name is shorter: its Jobs' names are its own with a time behind.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::super::columns::{AGE, boolean, col, containers, count, int, selector, since, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::podspec::workload;
use super::super::validate;
use super::job::{check_template_spec, default_failure_policy};
use super::schedule;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The CronJob's strategy.
pub(in super::super) struct CronJob;

/// 63 bytes of a Job's name less "-" and ten digits.
const NAME_BYTES_MAX: usize = 52;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
        if let Some(spec) = child_mut(object, &["spec", "jobTemplate", "spec"]) {
            default_failure_policy(spec);
        }
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(object, None, &mut out);
        let name = meta::name(object);
        if name.len() > NAME_BYTES_MAX {
            let why = format!("must be no more than {NAME_BYTES_MAX} characters");
            out.push(FieldError::invalid("metadata.name", name, why));
        }
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource != "status" {
            check(new, Some(old), &mut out);
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Schedule"),
            col("Timezone"),
            boolean("Suspend"),
            int("Active"),
            col("Last Schedule"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let none = || "<none>".to_owned();
        let zone = meta::at(object, &["spec", "timeZone"]).and_then(Value::as_str);
        let suspended = match meta::at(object, &["spec", "suspend"]).and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let [names, images] =
            containers(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
        vec![
            meta::text(object, &["spec", "schedule"]).into(),
            zone.unwrap_or("<none>").into(),
            suspended.into(),
            count(object, &["status", "active"]).into(),
            since(object, &["status", "lastScheduleTime"], now).unwrap_or_else(none).into(),
            age(object, now).into(),
            names,
            images,
            selector(object, &["spec", "jobTemplate", "spec", "selector"]),
        ]
    }
}

fn check(object: &Value, old: Option<&Value>, out: &mut Errors) {
    let root = Field::root(object);
    let spec = root.get("spec");
    let expression = spec.get("schedule");
    validate::required(&expression, out);
    if !expression.text().is_empty()
        && let Err(why) = schedule::check(expression.text())
    {
        out.push(expression.invalid(why));
    }
    let has_zone = expression.text().contains("TZ");
    let had_zone = old.is_some_and(|old| meta::text(old, &["spec", "schedule"]).contains("TZ"));
    let zone = spec.get("timeZone");
    if has_zone && had_zone && zone.is_set() {
        let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        out.push(expression.invalid(why));
    } else if has_zone && !had_zone {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        out.push(expression.invalid(why));
    }
    let numbers =
        ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    validate::all_non_negative(&spec, &numbers, out);
    let before = old.map_or("", |old| meta::text(old, &["spec", "timeZone"]));
    if zone.is_set() && (old.is_none() || zone.text() != before) {
        time_zone(&zone, out);
    }
    validate::one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], out);
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    check_template_spec(&job, out);
    let selector = job.get("selector");
    if selector.is_set() {
        out.push(selector.invalid("`selector` will be auto-generated"));
    }
    let manual = job.get("manualSelector");
    if manual.flag() {
        out.push(manual.not_supported(&["nil", "false"]));
    }
}

fn time_zone(zone: &Field, out: &mut Errors) {
    let text = zone.text();
    if text.is_empty() {
        out.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if text.eq_ignore_ascii_case("local") {
        out.push(zone.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if TimeZone::get(text).is_err() {
        out.push(zone.invalid(format!("unknown time zone {text}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};

    #[test]
    fn schedules_and_zones_are_checked() {
        let job = |spec: Value| {
            let pod = json!({"restartPolicy": "Never",
                             "containers": [{"name": "c", "image": "i"}]});
            let mut all = json!({"schedule": "* * * * *",
                                 "jobTemplate": {"spec": {"template": {"spec": pod}}}});
            all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            created(&CronJob, json!({"metadata": {"name": "c"}, "spec": all}))
        };
        let good = job(json!({"timeZone": "Etc/UTC"}));
        assert_eq!(errors_of_create(&CronJob, &good), Vec::<String>::new());
        assert!(good["spec"]["jobTemplate"]["spec"].get("backoffLimit").is_none());
        assert_eq!(
            errors_of_create(&CronJob, &job(json!({"schedule": "* *", "timeZone": "Mars"}))),
            [
                "spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]",
                "spec.timeZone: Invalid value: \"Mars\": unknown time zone Mars",
            ]
        );
    }
}
