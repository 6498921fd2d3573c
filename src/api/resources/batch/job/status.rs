//! Validation of a Job's status: what is final stays final, and counters agree with conditions.
//!
//! Why only of what changed: an old status with a fault must still take other changes.

use super::super::super::columns::{condition, count, number};
use super::super::super::field::{Errors, Field};
use super::super::super::validate;
use super::spec::{index_count, omitted};
use crate::object::{Value, meta};

fn is(job: &Value, kind: &str) -> bool {
    condition(job, kind) == "True"
}

fn finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

/// A change of a Job's status.
pub(super) fn check(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let status = root.get("status");
    let counters = ["active", "succeeded", "failed", "ready", "terminating"];
    validate::all_non_negative(&status, &counters, out);
    let conditions = status.get("conditions");
    let differs = |name: &str| {
        let at = |job: &Value| meta::at(job, &["status", name]).cloned().unwrap_or_default();
        !validate::same(&at(new), &at(old))
    };
    let flipped = |kind: &str| is(new, kind) != is(old, kind);
    for (holds, why) in [
        (
            flipped("Complete") && is(new, "Complete") && is(new, "Failed"),
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            flipped("Complete") && is(new, "Complete") && is(new, "FailureTarget"),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (flipped("Failed") || differs("failedIndexes"))
                && is(new, "Failed")
                && !is(new, "FailureTarget"),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (flipped("Complete") || flipped("SuccessCriteriaMet"))
                && is(new, "Complete")
                && !is(new, "SuccessCriteriaMet"),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            is(new, "SuccessCriteriaMet") && is(new, "Failed"),
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            is(new, "SuccessCriteriaMet") && is(new, "FailureTarget"),
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            is(old, "SuccessCriteriaMet") && !is(new, "SuccessCriteriaMet"),
            "cannot disable the SuccessCriteriaMet=True condition",
        ),
    ] {
        if holds {
            out.push(omitted(&conditions, why));
        }
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is(old, kind) && !is(new, kind) {
            let why = format!("cannot disable the terminal {kind}=True condition");
            out.push(omitted(&conditions, &why));
        }
    }
    times(new, old, &status, out);
    counts(new, old, &status, out);
    indexes(new, &status, &differs, out);
}

fn times(new: &Value, old: &Value, status: &Field, out: &mut Errors) {
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    let before = |name: &str| meta::text(old, &["status", name]).to_owned();
    let changed = end.text() != before("completionTime");
    if changed && !end.text().is_empty() && !is(new, "Complete") {
        let why = "cannot set completionTime when there is no Complete=True condition";
        out.push(end.invalid(why));
    }
    if is(new, "Complete") && end.text().is_empty() && (changed || !is(old, "Complete")) {
        out.push(end.required("completionTime is required for Complete jobs"));
    }
    if changed && !end.text().is_empty() && !before("completionTime").is_empty() {
        out.push(end.invalid(validate::IMMUTABLE));
    }
    if changed && !end.text().is_empty() && end.text() < start.text() {
        out.push(end.invalid("must be equal to or after `startTime`"));
    }
    let suspended = meta::at(new, &["spec", "suspend"]) == Some(&Value::Bool(true));
    let resuming = is(old, "Suspended") && condition(new, "Suspended") == "False";
    let moved = !before("startTime").is_empty() && start.text() != before("startTime");
    if moved && !suspended && !resuming {
        out.push(start.invalid_as(start.text(), "field is immutable for unsuspended job once set"));
    }
    let nothing_to_do = suspended && number(new, &["spec", "completions"]) == 0;
    let ended = finished(new) && !finished(old);
    if start.text().is_empty() && ended && !nothing_to_do {
        out.push(start.required("startTime is required for finished job"));
    }
}

fn counts(new: &Value, old: &Value, status: &Field, out: &mut Errors) {
    let before = |name: &str| number(old, &["status", name]);
    let now = |name: &str| number(new, &["status", name]);
    let fault = |name: &str, why: &str, out: &mut Errors| {
        out.push(status.get(name).invalid_as(now(name), why));
    };
    if now("failed") < before("failed") {
        fault("failed", "cannot decrease the failed counter", out);
    }
    let scaled = meta::text(new, &["spec", "completionMode"]) == "Indexed"
        && number(new, &["spec", "completions"]) == number(new, &["spec", "parallelism"]);
    if now("succeeded") < before("succeeded") && !scaled {
        fault("succeeded", "cannot decrease the succeeded counter", out);
    }
    if finished(new) {
        let ended = !finished(old);
        if now("active") > 0 && (ended || now("active") != before("active")) {
            fault("active", "active>0 is invalid for finished job", out);
        }
        if now("terminating") > 0 && (ended || now("terminating") != before("terminating")) {
            fault("terminating", "terminating>0 is invalid for finished job", out);
        }
        let uncounted = status.get("uncountedTerminatedPods");
        let pods = count(uncounted.value(), &["failed"]) + count(uncounted.value(), &["succeeded"]);
        if pods > 0 && ended {
            out.push(uncounted.invalid("must be empty for finished job"));
        }
    }
    if now("ready") > now("active") && now("ready") != before("ready") {
        fault("ready", "cannot set more ready pods than active", out);
    }
}

fn indexes(new: &Value, status: &Field, differs: &dyn Fn(&str) -> bool, out: &mut Errors) {
    let indexed = meta::text(new, &["spec", "completionMode"]) == "Indexed";
    let total = number(new, &["spec", "completions"]);
    let (done, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    if differs("completedIndexes") && !done.text().is_empty() {
        if !indexed {
            let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
            out.push(done.invalid(why));
        } else if let Err(why) = index_count(done.text(), total) {
            out.push(done.invalid(format!("error parsing completedIndexes: {why}")));
        }
    }
    if differs("failedIndexes") && failed.is_set() {
        if meta::at(new, &["spec", "backoffLimitPerIndex"]).is_none() {
            let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            out.push(failed.invalid(why));
        } else if let Err(why) = index_count(failed.text(), total) {
            out.push(failed.invalid(format!("error parsing failedIndexes: {why}")));
        }
    }
}
