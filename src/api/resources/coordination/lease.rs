//! Lease.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;

/// The Lease's strategy.
pub(in super::super) const LEASE: Declared = Declared {
    rules: &[
        ("spec.leaseDurationSeconds", Rule::Check(duration)),
        ("spec.leaseTransitions", Rule::NonNegative),
        ("spec", Rule::Check(holder)),
    ],
    create_on_update: true,
    unconditional: false,
    columns: &[col("Holder"), AGE],
    cells: &[Cell::Text(&["spec", "holderIdentity"]), Cell::Age],
    ..Declared::NONE
};

fn duration(field: &Field, out: &mut Errors) {
    if field.int().is_some_and(|seconds| seconds <= 0) {
        out.push(field.invalid("must be greater than 0"));
    }
}

fn holder(spec: &Field, out: &mut Errors) {
    let holder = spec.get("preferredHolder");
    if !holder.text().is_empty() && spec.get("strategy").text().is_empty() {
        out.push(holder.forbidden("may only be specified if `strategy` is defined"));
    }
}
