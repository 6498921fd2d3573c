//! The storage.k8s.io group.

pub(super) mod csidriver;
pub(super) mod csinode;
pub(super) mod csistoragecapacity;
pub(super) mod storageclass;
pub(super) mod volumeattachment;
pub(super) mod volumeattributesclass;

use super::field::{Errors, Field};
use super::names;

/// Bytes of all of a class's parameters.
const PARAMETER_BYTES_MAX: usize = 256 * 1024;
const PARAMETERS_MAX: usize = 512;

/// The name of a provisioner or driver.
fn provisioner(field: &Field, out: &mut Errors) {
    if field.text().is_empty() {
        out.push(field.required(""));
        return;
    }
    let lower = field.text().to_lowercase();
    names::qualified_name(&lower).into_iter().for_each(|fault| {
        out.push(field.invalid_as(lower.as_str(), fault));
    });
}

fn parameters(field: &Field, out: &mut Errors) {
    if field.len() > PARAMETERS_MAX {
        out.push(field.too_long(PARAMETERS_MAX));
    }
    let mut bytes = 0;
    for (key, value) in field.entries() {
        if key.is_empty() {
            out.push(field.invalid_as("", "field can not be empty."));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETER_BYTES_MAX {
        out.push(field.too_long(PARAMETER_BYTES_MAX));
    }
}
