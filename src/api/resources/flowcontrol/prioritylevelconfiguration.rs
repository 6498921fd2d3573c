//! PriorityLevelConfiguration.

use serde_json::json;

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use super::super::validate;
use crate::object::Value;

const QUEUES_MAX: i64 = 10_000_000;

/// The PriorityLevelConfiguration's strategy.
pub(in super::super) const PRIORITY_LEVEL_CONFIGURATION: Declared = Declared {
    defaults,
    rules: &[("spec.type", Rule::OneOf(&["Exempt", "Limited"])), ("spec", Rule::Check(check))],
    generation: true,
    new_status: || Some(json!({})),
    columns: &[
        col("Type"),
        col("NominalConcurrencyShares"),
        col("Queues"),
        col("HandSize"),
        col("QueueLengthLimit"),
        AGE,
    ],
    cells: &[
        Cell::Text(&["spec", "type"]),
        Cell::Or(&["spec", "limited", "nominalConcurrencyShares"], "<none>"),
        Cell::Or(&["spec", "limited", "limitResponse", "queuing", "queues"], "<none>"),
        Cell::Or(&["spec", "limited", "limitResponse", "queuing", "handSize"], "<none>"),
        Cell::Or(&["spec", "limited", "limitResponse", "queuing", "queueLengthLimit"], "<none>"),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn defaults(object: &mut Value) {
    if let Some(limited) = child_mut(object, &["spec", "limited"]) {
        fill(limited, "nominalConcurrencyShares", 30);
        fill(limited, "lendablePercent", 0);
    }
    if let Some(exempt) = child_mut(object, &["spec", "exempt"]) {
        fill(exempt, "nominalConcurrencyShares", 0);
        fill(exempt, "lendablePercent", 0);
    }
    if let Some(queuing) = child_mut(object, &["spec", "limited", "limitResponse", "queuing"]) {
        fill(queuing, "handSize", 8);
        fill(queuing, "queues", 64);
        fill(queuing, "queueLengthLimit", 50);
    }
}

fn check(spec: &Field, out: &mut Errors) {
    let (limited, exempt) = (spec.get("limited"), spec.get("exempt"));
    match spec.get("type").text() {
        "Exempt" if limited.is_set() => {
            out.push(limited.forbidden("must be nil if the type is not Limited"));
        }
        "Limited" => {
            if exempt.is_set() {
                out.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                limits(&limited, out);
            } else {
                out.push(limited.required("must not be empty when type is Limited"));
            }
        }
        _ => {}
    }
}

fn limits(limited: &Field, out: &mut Errors) {
    let shares = limited.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|shares| shares < 0) {
        out.push(shares.invalid("must be a non-negative integer"));
    }
    validate::in_range(&limited.get("lendablePercent"), 0, 100, out);
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    validate::one_of(&kind, &["Queue", "Reject"], out);
    match kind.text() {
        "Reject" if queuing.is_set() => {
            out.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
        }
        "Queue" if !queuing.is_set() => {
            out.push(
                queuing.required("must not be empty if limited.limitResponse.type is Limited"),
            );
        }
        "Queue" => {
            for name in ["queues", "handSize", "queueLengthLimit"] {
                let field = queuing.get(name);
                if field.int().unwrap_or(0) <= 0 {
                    out.push(field.invalid("must be positive"));
                }
            }
            let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
            if queues.int().unwrap_or(0) > QUEUES_MAX {
                out.push(queues.invalid(format!("must not be greater than {QUEUES_MAX}")));
            }
            if hand.int().unwrap_or(0) > queues.int().unwrap_or(0) {
                let count = queues.int().unwrap_or(0);
                out.push(hand.invalid(format!("should not be greater than queues ({count})")));
            }
        }
        _ => {}
    }
}
