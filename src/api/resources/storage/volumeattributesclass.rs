//! VolumeAttributesClass.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;

/// The VolumeAttributesClass's strategy.
pub(in super::super) const VOLUME_ATTRIBUTES_CLASS: Declared = Declared {
    rules: &[
        ("driverName", Rule::Check(super::provisioner)),
        ("parameters", Rule::Check(parameters)),
    ],
    immutable: &["driverName", "parameters"],
    columns: &[col("DriverName"), AGE],
    cells: &[Cell::Text(&["driverName"]), Cell::Age],
    ..Declared::NONE
};

fn parameters(field: &Field, out: &mut Errors) {
    super::parameters(field, out);
    if field.is_empty() {
        out.push(field.required("must contain at least one key/value pair"));
    }
}
