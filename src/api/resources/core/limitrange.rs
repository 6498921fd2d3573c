//! LimitRange.
//!
//! Why its defaults cascade: a maximum is the default limit, a limit the default request.

use serde_json::json;

use super::super::columns::{AGE, Cell};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, list_mut, map_mut};
use super::super::podspec::resources::resource_name;
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::quantity::Quantity;
use crate::object::{Map, Value};

/// The LimitRange's strategy.
pub(in super::super) const LIMIT_RANGE: Declared = Declared {
    defaults,
    rules: &[("spec", Rule::Check(check))],
    create_on_update: true,
    columns: &[AGE],
    cells: &[Cell::Age],
    ..Declared::NONE
};

/// Sides of a limit that name the greater second.
const ORDERED: &[(&str, &str, &str, &str)] = &[
    ("min", "max", "min", "min value {} is greater than max value {}"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "min value {} is greater than default request value {}",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "default request value {} is greater than max value {}",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min value {} is greater than default value {}"),
    ("default", "max", "default", "default value {} is greater than max value {}"),
];

fn defaults(object: &mut Value) {
    let Some(spec) = child_mut(object, &["spec"]) else { return };
    for limit in list_mut(spec, "limits").filter_map(Value::as_object_mut) {
        if limit.get("type") != Some(&json!("Container")) {
            continue;
        }
        copy(limit, "max", "default");
        copy(limit, "default", "defaultRequest");
        copy(limit, "min", "defaultRequest");
    }
}

fn copy(limit: &mut Map, from: &str, to: &str) {
    let source = limit.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(target) = map_mut(limit, to) {
        for (name, amount) in source {
            target.entry(name).or_insert(amount);
        }
    }
}

fn check(spec: &Field, out: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for limit in spec.get("limits").items() {
        let kind = limit.get("type");
        let before = out.len();
        validate::format(&kind, names::qualified_name, out);
        let known = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
        if out.len() == before && !kind.text().contains('/') && !known {
            out.push(kind.invalid("must be a standard limit type or fully qualified"));
        }
        if seen.iter().any(|other| other == kind.text()) {
            out.push(kind.duplicate());
        }
        seen.push(kind.text().to_owned());
        one(&limit, kind.text(), out);
    }
}

fn one(limit: &Field, kind: &str, out: &mut Errors) {
    for side in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let side_is = limit.get(side);
        if kind == "Pod" && side.starts_with("default") {
            if !side_is.is_empty() {
                out.push(side_is.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, amount) in side_is.entries() {
            resource_name(name, &amount, out);
        }
    }
    let has = |side: &str| limit.get(side).key("storage").is_set();
    if kind == "PersistentVolumeClaim" && !has("min") && !has("max") {
        out.push(limit.get("limits").required(
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
    for (lower, upper, shown, text) in ORDERED {
        let (lower, upper, shown) = (limit.get(lower), limit.get(upper), limit.get(shown));
        for (name, low) in lower.entries() {
            let pair =
                (validate::quantity(low.value()), validate::quantity(upper.key(name).value()));
            if let (Some(low), Some(high)) = pair
                && low > high
            {
                let why =
                    text.replacen("{}", &low.to_string(), 1).replacen("{}", &high.to_string(), 1);
                out.push(shown.key(name).invalid(why));
            }
        }
    }
    for (_, ratio) in limit.get("maxLimitRequestRatio").entries() {
        let amount = validate::quantity(ratio.value());
        if let Some(amount) = amount.filter(|amount| *amount < Quantity::from_units(1)) {
            out.push(ratio.invalid(format!("ratio {amount} is less than 1")));
        }
    }
}
