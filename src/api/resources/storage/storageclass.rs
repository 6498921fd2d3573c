//! StorageClass.
//!
//! Why its table writes the name itself: the default class is marked there.

use super::super::columns::{AGE, Cell, boolean, col, name_column};
use super::super::declared::Declared;
use super::super::fill::fill;
use super::super::rules::Rule;
use crate::object::{Value, meta};

/// Marks the class that claims without one get.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// The StorageClass's strategy.
pub(in super::super) const STORAGE_CLASS: Declared = Declared {
    defaults: |object| {
        if let Some(map) = object.as_object_mut() {
            fill(map, "reclaimPolicy", "Delete");
            fill(map, "volumeBindingMode", "Immediate");
        }
    },
    rules: &[
        ("provisioner", Rule::Check(super::provisioner)),
        ("parameters", Rule::Check(super::parameters)),
        ("reclaimPolicy", Rule::MayBeOneOf(&["Delete", "Retain"])),
        ("volumeBindingMode", Rule::OneOf(&["Immediate", "WaitForFirstConsumer"])),
    ],
    immutable: &["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"],
    columns: &[
        name_column(0),
        col("Provisioner"),
        col("ReclaimPolicy"),
        col("VolumeBindingMode"),
        boolean("AllowVolumeExpansion"),
        AGE,
    ],
    cells: &[
        Cell::Made(name),
        Cell::Text(&["provisioner"]),
        Cell::Or(&["reclaimPolicy"], "Delete"),
        Cell::Or(&["volumeBindingMode"], "Immediate"),
        Cell::Bool(&["allowVolumeExpansion"]),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn name(object: &Value) -> Value {
    let marked = [DEFAULT, BETA_DEFAULT]
        .iter()
        .any(|key| meta::text(object, &["metadata", "annotations", key]) == "true");
    let name = meta::name(object);
    if marked { format!("{name} (default)").into() } else { name.into() }
}
