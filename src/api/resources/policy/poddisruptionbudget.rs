//! PodDisruptionBudget.

use serde_json::json;

use super::super::columns::{AGE, Cell, col, int};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;
use super::super::validate;

/// The PodDisruptionBudget's strategy.
pub(in super::super) const POD_DISRUPTION_BUDGET: Declared = Declared {
    rules: &[
        ("spec", Rule::Check(check)),
        ("spec.selector", Rule::Selector),
        ("spec.unhealthyPodEvictionPolicy", Rule::MayBeOneOf(&["AlwaysAllow", "IfHealthyBudget"])),
    ],
    status_rules: &[
        ("status.disruptionsAllowed", Rule::NonNegative),
        ("status.currentHealthy", Rule::NonNegative),
        ("status.desiredHealthy", Rule::NonNegative),
        ("status.expectedPods", Rule::NonNegative),
    ],
    generation: true,
    unconditional: false,
    new_status: || {
        Some(json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        }))
    },
    columns: &[col("Min Available"), col("Max Unavailable"), int("Allowed Disruptions"), AGE],
    cells: &[
        Cell::Or(&["spec", "minAvailable"], "N/A"),
        Cell::Or(&["spec", "maxUnavailable"], "N/A"),
        Cell::Int(&["status", "disruptionsAllowed"]),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn check(spec: &Field, out: &mut Errors) {
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        out.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for field in [&min, &max].into_iter().filter(|field| field.is_set()) {
        validate::int_or_percent(field, out);
        validate::at_most_100_percent(field, out);
    }
}
