//! ResourceQuota.

use serde_json::json;

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::podspec::resources::resource_name;
use super::super::rules::Rule;
use super::super::validate;
use super::persistentvolumeclaim::amount;
use crate::object::{Value, meta};

/// The ResourceQuota's strategy.
pub(in super::super) const RESOURCE_QUOTA: Declared = Declared {
    rules: &[("spec", Rule::Check(check))],
    immutable: &["spec.scopes"],
    new_status: || Some(json!({})),
    columns: &[col("Request"), col("Limit"), AGE],
    cells: &[
        Cell::Made(|object| used(object, false)),
        Cell::Made(|object| used(object, true)),
        Cell::Age,
    ],
    ..Declared::NONE
};

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// Used and allowed amounts; `limits.` resources have a column of their own.
fn used(object: &Value, limits: bool) -> Value {
    let hard = meta::at(object, &["status", "hard"]).and_then(Value::as_object);
    let shown: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, _)| {
            let used = amount(object, &["status", "used", name]);
            format!("{name}: {used}/{}", amount(object, &["status", "hard", name]))
        })
        .collect();
    shown.join(", ").into()
}

fn check(spec: &Field, out: &mut Errors) {
    for (name, amount) in spec.get("hard").entries() {
        resource_name(name, &amount, out);
        validate::resource_amount(name, &amount, out);
    }
    let scopes = spec.get("scopes");
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            out.push(scopes.invalid("unsupported scope"));
        }
    }
    let has = |name: &str| scopes.items().any(|scope| scope.text() == name);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            out.push(scopes.invalid("conflicting scopes"));
        }
    }
    let selector = spec.get("scopeSelector");
    let needs = selector.get("matchExpressions");
    for need in needs.items() {
        // Upstream's paths leave the index out.
        let scope = needs.named("scopeName", need.get("scopeName").value());
        let operator = needs.named("operator", need.get("operator").value());
        let values = needs.named("values", need.get("values").value());
        if !SCOPES.contains(&scope.text()) {
            out.push(scope.invalid_as(scope.text(), "unsupported scope"));
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => out.push(values.required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => out.push(values.invalid(
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(operator.invalid_as(other, "not a valid selector operator")),
        }
    }
}
