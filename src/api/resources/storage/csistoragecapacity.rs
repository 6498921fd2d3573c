//! CSIStorageCapacity.

use super::super::columns::{Cell, col};
use super::super::declared::Declared;
use super::super::names;
use super::super::rules::Rule;

/// The CSIStorageCapacity's strategy.
pub(in super::super) const CSI_STORAGE_CAPACITY: Declared = Declared {
    rules: &[
        ("nodeTopology", Rule::Selector),
        ("storageClassName", Rule::Is(names::dns_subdomain)),
        ("capacity", Rule::Amount),
    ],
    immutable: &["nodeTopology", "storageClassName"],
    unconditional: false,
    columns: &[col("StorageClassName"), col("Capacity")],
    cells: &[Cell::Text(&["storageClassName"]), Cell::Or(&["capacity"], "<unset>")],
    ..Declared::NONE
};
