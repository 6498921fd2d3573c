//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! Expressions are stored unread: no evaluator of CEL is built yet (a write's warning says so).

use serde_json::json;

use super::super::columns::{AGE, Cell, col, int};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use super::super::validate;
use super::{check_match, check_rule, default_match};
use crate::object::{Value, meta};

/// The strategy of a ValidatingAdmissionPolicy.
pub(in super::super) const VALIDATING: Declared = Declared {
    defaults,
    rules: &[
        ("spec", Rule::Check(common)),
        ("spec", Rule::Check(validations)),
        ("spec.validations[].expression", Rule::Required),
        ("spec.auditAnnotations[].key", Rule::Required),
        ("spec.auditAnnotations[].valueExpression", Rule::Required),
    ],
    generation: true,
    unconditional: false,
    new_status: || Some(json!({})),
    columns: &[int("Validations"), col("ParamKind"), AGE],
    cells: &[Cell::Count(&["spec", "validations"]), Cell::Made(param_kind), Cell::Age],
    ..Declared::NONE
};

/// The strategy of a MutatingAdmissionPolicy.
pub(in super::super) const MUTATING: Declared = Declared {
    rules: &[
        ("spec", Rule::Check(common)),
        ("spec.mutations", Rule::Required),
        ("spec.mutations[].patchType", Rule::OneOf(&["ApplyConfiguration", "JSONPatch"])),
        ("spec.reinvocationPolicy", Rule::OneOf(&["IfNeeded", "Never"])),
    ],
    new_status: || None,
    columns: &[int("Mutations"), col("ParamKind"), AGE],
    cells: &[Cell::Count(&["spec", "mutations"]), Cell::Made(param_kind), Cell::Age],
    ..VALIDATING
};

fn defaults(object: &mut Value) {
    let Some(spec) = child_mut(object, &["spec"]) else { return };
    fill(spec, "failurePolicy", "Fail");
    if let Some(constraints) = spec.get_mut("matchConstraints").and_then(Value::as_object_mut) {
        default_match(constraints);
    }
}

fn param_kind(object: &Value) -> Value {
    match meta::at(object, &["spec", "paramKind"]) {
        Some(kind) => {
            let (version, kind) = (meta::text(kind, &["apiVersion"]), meta::text(kind, &["kind"]));
            format!("{version}/{kind}").into()
        }
        None => "<unset>".into(),
    }
}

fn common(spec: &Field, out: &mut Errors) {
    validate::one_of(&spec.get("failurePolicy"), &["Fail", "Ignore"], out);
    let parameter = spec.get("paramKind");
    if parameter.is_set() {
        validate::required(&parameter.get("apiVersion"), out);
        validate::required(&parameter.get("kind"), out);
    }
    let constraints = spec.get("matchConstraints");
    if !constraints.is_set() {
        out.push(constraints.required(""));
        return;
    }
    check_match(&constraints, out);
    let rules = constraints.get("resourceRules");
    validate::required(&rules, out);
    rules.items().for_each(|rule| check_rule(&rule, out));
}

fn validations(spec: &Field, out: &mut Errors) {
    if spec.get("validations").is_empty() && spec.get("auditAnnotations").is_empty() {
        let why = "validations or auditAnnotations must be specified";
        out.push(spec.get("validations").required(&format!("{why}: at least one is required")));
    }
}
