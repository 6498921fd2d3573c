//! RuntimeClass.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::names;
use super::super::podspec::scheduling;
use super::super::rules::Rule;

/// The RuntimeClass's strategy.
pub(in super::super) const RUNTIME_CLASS: Declared = Declared {
    rules: &[
        ("handler", Rule::Is(names::dns_label)),
        ("scheduling.nodeSelector", Rule::Labels),
        ("scheduling.tolerations", Rule::Check(scheduling::tolerations)),
    ],
    immutable: &["handler"],
    create_on_update: true,
    unconditional: false,
    columns: &[col("Handler"), AGE],
    cells: &[Cell::Text(&["handler"]), Cell::Age],
    ..Declared::NONE
};
