//! Validation of a JobSpec, also inside a CronJob.
//!
//! Why so many bounds: the status of an indexed Job lists indexes, and must fit into an object.

use super::super::super::field::{Errors, Field};
use super::super::super::{names, podspec, validate};
use super::{NAME_LABELS, UID_LABELS};
use crate::object::selector::Selector;
use crate::object::{Value, meta};

/// Pods of an indexed Job that may run at once.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Completions above which the bounds below hold for a Job with a back-off per index.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const HIGH_PARALLELISM_MAX: i64 = 10_000;
const HIGH_FAILED_INDEXES_MAX: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;
const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITION_PATTERNS_MAX: usize = 20;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// A Job; `prefixed` asks for the labels with a domain too.
pub(super) fn check(job: &Value, prefixed: bool, out: &mut Errors) {
    let root = Field::root(job);
    let spec = root.get("spec");
    generated_selector(&root, prefixed, out);
    check_template_spec(&spec, out);
    let selector = spec.get("selector");
    if selector.is_set() {
        validate::label_selector(&selector, out);
        validate::selector_matches(&selector, &spec.get("template"), out);
    } else {
        out.push(selector.required(""));
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    if spec.get("completionMode").text() == "Indexed" && completions > 0 {
        let host = format!("{}-{}", meta::name(job), completions - 1);
        if !names::dns_label(&host).is_empty() {
            let metadata = root.get("metadata");
            let name = metadata.get("name");
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            out.push(name.invalid(why));
        }
    }
}

fn generated_selector(root: &Field, prefixed: bool, out: &mut Errors) {
    let (metadata, spec) = (root.get("metadata"), root.get("spec"));
    let selector = spec.get("selector");
    if spec.get("manualSelector").flag() || !selector.is_set() {
        return;
    }
    let (uid, name) = (metadata.get("uid").text(), metadata.get("name").text());
    if uid.is_empty() {
        out.push(metadata.get("uid").required(""));
    }
    let template = spec.get("template");
    let template = template.get("metadata");
    let labels = template.get("labels");
    let count = if prefixed { 2 } else { 1 };
    let expected: Vec<(&str, &str)> =
        (0..count).flat_map(|at| [(UID_LABELS[at], uid), (NAME_LABELS[at], name)]).collect();
    for (key, value) in &expected {
        let label = labels.key(key);
        if !label.is_set() {
            out.push(label.required(&format!("must be '{value}'")));
        } else if label.text() != *value {
            // Upstream shows all labels here.
            out.push(label.invalid_as(labels.value().clone(), format!("must be '{value}'")));
        }
    }
    let found = |key: &str| expected.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if Selector::from_label_selector(selector.value()).is_ok_and(|it| !it.matches_by(found)) {
        out.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// What holds for a JobSpec before its selector is made.
pub(in super::super) fn check_template_spec(spec: &Field, out: &mut Errors) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    validate::all_non_negative(spec, &numbers, out);
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if failed.is_set() && !per_index.is_set() {
        out.push(per_index.required("when maxFailedIndexes is specified"));
    }
    managed_by(&spec.get("managedBy"), out);
    let mode = spec.get("completionMode");
    validate::optional_one_of(&mode, &["NonIndexed", "Indexed"], out);
    if mode.text() == "Indexed" {
        indexed(spec, out);
    } else {
        for field in [&per_index, &failed].into_iter().filter(|field| field.is_set()) {
            out.push(field.invalid("requires indexed completion mode"));
        }
    }
    failure_policy(spec, out);
    success_policy(spec, out);
    let replacement = spec.get("podReplacementPolicy");
    if spec.get("podFailurePolicy").is_set() {
        validate::optional_one_of(&replacement, &["Failed"], out);
    } else {
        validate::optional_one_of(&replacement, &["Failed", "TerminatingOrFailed"], out);
    }
    let template = spec.get("template");
    podspec::template(&template, out);
    let pod = template.get("spec");
    let policy = pod.get("restartPolicy");
    match policy.text() {
        "" | "Always" => out.push(policy.required("valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            out.push(policy.invalid(why));
        }
        "OnFailure" => {}
        _ => out.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}

fn managed_by(field: &Field, out: &mut Errors) {
    if !field.is_set() {
        return;
    }
    validate::domain_path(field, out);
    if field.text().len() > MANAGED_BY_BYTES_MAX {
        out.push(field.too_long(MANAGED_BY_BYTES_MAX));
    }
}

fn indexed(spec: &Field, out: &mut Errors) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    let at_most = |field: &Field, max: i64, tail: &str, out: &mut Errors| {
        if field.int().is_some_and(|number| number > max) {
            out.push(field.invalid(format!("must be less than or equal to {max}{tail}")));
        }
    };
    if !completions.is_set() {
        out.push(completions.required("when completion mode is Indexed"));
    }
    let tail = " when completion mode is Indexed";
    at_most(&parallelism, INDEXED_PARALLELISM_MAX, tail, out);
    let total = completions.int().unwrap_or(i64::MAX);
    if failed.int().is_some_and(|failed| failed > total) {
        out.push(failed.invalid("must be less than or equal to completions"));
    }
    at_most(&failed, FAILED_INDEXES_MAX, "", out);
    let many = completions.int().is_some_and(|total| total > COMPLETIONS_SOFT_MAX);
    if many && spec.get("backoffLimitPerIndex").is_set() {
        if !failed.is_set() {
            out.push(failed.required(&format!(
                "must be specified when completions is above {COMPLETIONS_SOFT_MAX}"
            )));
        }
        let tail = format!(
            " when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per \
             index"
        );
        at_most(&parallelism, HIGH_PARALLELISM_MAX, &tail, out);
        at_most(&failed, HIGH_FAILED_INDEXES_MAX, &tail, out);
    }
}

fn failure_policy(spec: &Field, out: &mut Errors) {
    let policy = spec.get("podFailurePolicy");
    let rules = policy.get("rules");
    if rules.len() > FAILURE_RULES_MAX {
        out.push(rules.too_many(FAILURE_RULES_MAX));
    }
    for rule in rules.items() {
        let (action, codes) = (rule.get("action"), rule.get("onExitCodes"));
        let conditions = rule.get("onPodConditions");
        if action.text().is_empty() {
            out.push(action.required(&format!("valid values: {ACTIONS:?}").replace(',', "")));
        } else if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_set() {
            out.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        } else {
            validate::optional_one_of(&action, ACTIONS, out);
        }
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => out.push(omitted(
                &rule,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (false, false) => out.push(omitted(
                &rule,
                "specifying one of OnExitCodes and OnPodConditions is required",
            )),
            _ => {}
        }
        if codes.is_set() {
            exit_codes(spec, &codes, out);
        }
        if conditions.len() > CONDITION_PATTERNS_MAX {
            out.push(conditions.too_many(CONDITION_PATTERNS_MAX));
        }
        for pattern in conditions.items() {
            validate::format(&pattern.get("type"), names::qualified_name, out);
            validate::one_of(&pattern.get("status"), &["False", "True", "Unknown"], out);
        }
    }
}

/// "Invalid value" without the value (upstream's `OmitValueType`).
pub(super) fn omitted(field: &Field, why: &str) -> crate::object::status::FieldError {
    field.invalid_omitting_value(why)
}

fn exit_codes(spec: &Field, codes: &Field, out: &mut Errors) {
    let (operator, values) = (codes.get("operator"), codes.get("values"));
    validate::one_of(&operator, &["In", "NotIn"], out);
    let container = codes.get("containerName");
    let template = spec.get("template");
    let pod = template.get("spec");
    let known = ["containers", "initContainers"]
        .iter()
        .any(|list| pod.get(list).items().any(|one| one.get("name").text() == container.text()));
    if container.is_set() && !known {
        let why = "must be one of the container or initContainer names in the pod template";
        out.push(container.invalid(why));
    }
    if values.is_empty() {
        out.push(values.invalid("at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        out.push(values.too_many(EXIT_CODES_MAX));
    }
    let numbers: Vec<i64> = values.items().filter_map(|value| value.int()).collect();
    for (at, number) in numbers.iter().enumerate() {
        if operator.text() == "In" && *number == 0 {
            out.push(values.index(at).invalid("must not be 0 for the In operator"));
        }
        if numbers[..at].contains(number) {
            out.push(values.index(at).duplicate());
        }
    }
    if !numbers.is_sorted() {
        out.push(values.invalid("must be ordered"));
    }
}

fn success_policy(spec: &Field, out: &mut Errors) {
    const RULES_MAX: usize = 20;
    let policy = spec.get("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.get("completionMode").text() != "Indexed" {
        out.push(policy.invalid("requires indexed completion mode"));
        return;
    }
    let rules = policy.get("rules");
    let total = spec.get("completions").int().unwrap_or(0);
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        out.push(rules.required(why));
    }
    if rules.len() > RULES_MAX {
        out.push(rules.too_many(RULES_MAX));
    }
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            out.push(rule.required(why));
        }
        let mut listed = i64::MAX;
        if indexes.is_set() {
            match index_count(indexes.text(), total) {
                Ok(count) => listed = count,
                Err(why) => {
                    out.push(indexes.invalid(format!("error parsing succeededIndexes: {why}")));
                }
            }
        }
        validate::non_negative(&count, out);
        if count.int().is_some_and(|count| count > total) {
            out.push(count.invalid(format!(
                "must be less than or equal to {total} (the number of specified completions)"
            )));
        }
        if count.int().is_some_and(|count| count > listed) {
            out.push(count.invalid(format!(
                "must be less than or equal to {listed} (the number of indexes in the specified \
                 succeededIndexes field)"
            )));
        }
    }
}

/// How many indexes a list like "1,3-5" names; they must rise and stay below `total`.
pub(super) fn index_count(text: &str, total: i64) -> Result<i64, String> {
    let (mut count, mut last) = (0, -1);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from >= total || to >= total {
            return Err(format!("too large index: {part:?}"));
        }
        if from <= last || to < from {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        count += to - from + 1;
        last = to;
    }
    Ok(count)
}

/// What an update may not change.
pub(super) fn check_update(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let spec = root.get("spec");
    let completions = spec.get("completions");
    let before = meta::at(old, &["spec", "completions"]).unwrap_or(&Value::Null);
    if !validate::same(completions.value(), before) {
        if spec.get("completionMode").text() != "Indexed" {
            out.push(completions.invalid(validate::IMMUTABLE));
        } else if completions.is_set() && completions.int() != spec.get("parallelism").int() {
            out.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
        }
    }
    validate::immutable_at(new, old, &["spec", "selector"], out);
    template_stays(new, old, out);
    for name in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        validate::immutable_at(new, old, &["spec", name], out);
    }
}

/// The template stays, but where a suspended Job waits: its pods may still be placed and sized.
fn template_stays(new: &Value, old: &Value, out: &mut Errors) {
    let path = ["spec", "template"];
    let template = meta::at(new, &path).cloned().unwrap_or_default();
    let mut allowed = meta::at(old, &path).cloned().unwrap_or_default();
    let suspended = meta::at(old, &["spec", "suspend"]) == Some(&Value::Bool(true));
    let started = !meta::text(old, &["status", "startTime"]).is_empty();
    let said = super::super::super::columns::condition(old, "Suspended") == "True";
    let active = meta::at(old, &["status", "active"]).and_then(Value::as_i64).unwrap_or(0);
    if suspended && (!started || said) && active == 0 {
        let mut adopt = |path: &[&str]| match meta::at(&template, path) {
            Some(value) => meta::set(&mut allowed, path, value.clone()),
            None => drop(meta::remove(&mut allowed, path)),
        };
        adopt(&["spec", "affinity", "nodeAffinity"]);
        adopt(&["spec", "nodeSelector"]);
        adopt(&["spec", "tolerations"]);
        adopt(&["spec", "schedulingGates"]);
        adopt(&["metadata", "annotations"]);
        adopt(&["metadata", "labels"]);
        for list in ["containers", "initContainers"] {
            let wanted = meta::at(&template, &["spec", list]).and_then(Value::as_array);
            let ours = meta::at_mut(&mut allowed, &["spec", list]).and_then(Value::as_array_mut);
            let pairs = ours.into_iter().flatten().zip(wanted.into_iter().flatten());
            for (ours, wanted) in pairs.filter(|(a, b)| a.get("name") == b.get("name")) {
                if let Some(resources) = wanted.get("resources") {
                    meta::set(ours, &["resources"], resources.clone());
                }
            }
        }
    }
    if !validate::same(&template, &allowed) {
        out.push(crate::object::status::FieldError::invalid(
            "spec.template",
            template,
            validate::IMMUTABLE,
        ));
    }
}
