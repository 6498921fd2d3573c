//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::child_mut;
use super::super::rules::Rule;
use super::super::validate;
use super::{check_match, default_match};
use crate::object::{Value, meta};

/// The strategy of a ValidatingAdmissionPolicyBinding.
pub(in super::super) const VALIDATING: Declared = Declared {
    defaults: |object| {
        if let Some(resources) = child_mut(object, &["spec", "matchResources"]) {
            default_match(resources);
        }
    },
    rules: &[
        ("spec.policyName", Rule::Required),
        ("spec.matchResources", Rule::Check(check_match)),
        ("spec.paramRef", Rule::Check(parameter)),
        ("spec", Rule::Check(actions)),
    ],
    generation: true,
    unconditional: false,
    columns: &[col("PolicyName"), col("ParamRef"), AGE],
    cells: &[Cell::Text(&["spec", "policyName"]), Cell::Made(param_ref), Cell::Age],
    ..Declared::NONE
};

/// The strategy of a MutatingAdmissionPolicyBinding.
pub(in super::super) const MUTATING: Declared = Declared {
    rules: &[
        ("spec.policyName", Rule::Required),
        ("spec.matchResources", Rule::Check(check_match)),
        ("spec.paramRef", Rule::Check(parameter)),
    ],
    ..VALIDATING
};

fn param_ref(object: &Value) -> Value {
    let Some(reference) = meta::at(object, &["spec", "paramRef"]) else { return "<unset>".into() };
    let text = |name: &str| meta::text(reference, &[name]);
    match (text("namespace"), text("name")) {
        ("", "") => super::super::columns::selector(reference, &["selector"]),
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}

fn parameter(reference: &Field, out: &mut Errors) {
    if !reference.is_set() {
        return;
    }
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    if !name.text().is_empty() && selector.is_set() {
        out.push(name.forbidden("name and selector are mutually exclusive"));
    } else if name.text().is_empty() && !selector.is_set() {
        out.push(reference.required("one of name or selector must be specified"));
    }
    validate::label_selector(&selector, out);
    let action = reference.get("parameterNotFoundAction");
    validate::one_of(&action, &["Allow", "Deny"], out);
}

fn actions(spec: &Field, out: &mut Errors) {
    let list = spec.get("validationActions");
    if list.is_empty() {
        out.push(list.required("at least one validation action is required"));
    }
    for (at, action) in list.items().enumerate() {
        validate::optional_one_of(&action, &["Audit", "Deny", "Warn"], out);
        if list.items().take(at).any(|other| other.text() == action.text()) {
            out.push(action.duplicate());
        }
    }
    let has = |name: &str| list.items().any(|action| action.text() == name);
    if has("Deny") && has("Warn") {
        out.push(list.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure \
             information in the API response and headers serves no purpose)",
        ));
    }
}
