//! What the kinds share that make pods from a template and keep them running.
//!
//! Why apart: the same selector, template and counters stand in six kinds.

use super::super::field::{Errors, Field};
use super::super::validate;
use super::template as check_template;
use crate::object::selector::Selector;
use crate::object::{Value, meta};

/// Defaults of the template at `spec.template`.
pub(in super::super) fn default_template(object: &mut Value, path: &[&str]) {
    if let Some(spec) = path.iter().try_fold(object, |value, step| value.get_mut(step)) {
        super::defaults::spec(spec);
    }
}

/// A selector that must be there and select something; `kind` as upstream's text names it.
pub(in super::super) fn selector(spec: &Field, kind: &str, out: &mut Errors) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        out.push(selector.required(""));
        return;
    }
    validate::label_selector(&selector, out);
    if validate::selects_everything(&selector) {
        out.push(selector.invalid(format!("empty selector is invalid for {kind}")));
    }
}

/// The template of pods that are to run for good, found again by the spec's selector.
pub(in super::super) fn template(spec: &Field, kind: &str, out: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    match Selector::from_label_selector(selector.value()) {
        Ok(selector) => validate::template_matches(&selector, &template, out),
        Err(_) => {
            out.push(selector.invalid("invalid label selector"));
            return;
        }
    }
    check_template(&template, out);
    runs_for_good(&template, kind, out);
}

/// Neither an end nor a deadline.
pub(in super::super) fn runs_for_good(template: &Field, kind: &str, out: &mut Errors) {
    let spec = template.get("spec");
    let (policy, deadline) = (spec.get("restartPolicy"), spec.get("activeDeadlineSeconds"));
    if policy.text() != "Always" {
        out.push(policy.not_supported(&["Always"]));
    }
    if deadline.is_set() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        out.push(deadline.forbidden(why));
    }
}

/// Counters of a status: none negative, none of the parts above the whole.
pub(in super::super) fn counters(
    status: &Field,
    parts: &[&str],
    others: &[&str],
    available_text: &str,
    out: &mut Errors,
) {
    validate::all_non_negative(status, &["replicas", "observedGeneration"], out);
    validate::all_non_negative(status, parts, out);
    validate::all_non_negative(status, others, out);
    let whole = status.get("replicas").int().unwrap_or(0);
    for name in parts {
        let part = status.get(name);
        if part.int().unwrap_or(0) > whole {
            out.push(part.invalid("cannot be greater than status.replicas"));
        }
    }
    let (available, ready) = (status.get("availableReplicas"), status.get("readyReplicas"));
    if available.int().unwrap_or(0) > ready.int().unwrap_or(0) {
        out.push(available.invalid(available_text));
    }
}

/// `status.collisionCount` only grows.
pub(in super::super) fn collisions(status: &Field, old: &Value, out: &mut Errors) {
    let now = status.get("collisionCount");
    let before = meta::at(old, &["status", "collisionCount"]).and_then(Value::as_i64);
    if before.is_some_and(|before| now.int().is_none_or(|now| now < before)) {
        out.push(now.invalid_as(now.int().unwrap_or(0), "cannot be decremented"));
    }
}
