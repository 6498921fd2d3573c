//! ResourceClaim.

use serde_json::json;

use super::super::columns::{AGE, Cell, col, list};
use super::super::declared::Declared;
use super::super::fill::child_mut;
use super::super::rules::Rule;
use crate::object::{Value, meta};

/// The ResourceClaim's strategy.
pub(in super::super) const RESOURCE_CLAIM: Declared = Declared {
    defaults: |object| {
        if let Some(spec) = child_mut(object, &["spec"]) {
            super::default_claim(spec);
        }
    },
    rules: &[("spec", Rule::Check(super::check_claim))],
    immutable: &["spec"],
    new_status: || Some(json!({})),
    columns: &[col("State"), AGE],
    cells: &[Cell::Made(state), Cell::Age],
    ..Declared::NONE
};

fn state(object: &Value) -> Value {
    let mut states = Vec::new();
    let deleting = meta::is_deleting(object);
    if deleting {
        states.push("deleted");
    }
    if meta::at(object, &["status", "allocation"]).is_some() {
        states.push("allocated");
        if !list(object, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    } else if !deleting {
        states.push("pending");
    }
    states.join(",").into()
}
