//! VolumeAttachment.

use serde_json::json;

use super::super::columns::{AGE, Cell, boolean, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::names;
use super::super::rules::Rule;

/// The VolumeAttachment's strategy.
pub(in super::super) const VOLUME_ATTACHMENT: Declared = Declared {
    rules: &[
        ("spec.attacher", Rule::Is(names::dns_subdomain)),
        ("spec.source", Rule::Check(source)),
        ("spec.nodeName", Rule::Is(names::dns_subdomain)),
    ],
    immutable: &["spec"],
    unconditional: false,
    new_status: || Some(json!({ "attached": false })),
    columns: &[col("Attacher"), col("PV"), col("Node"), boolean("Attached"), AGE],
    cells: &[
        Cell::Text(&["spec", "attacher"]),
        Cell::Text(&["spec", "source", "persistentVolumeName"]),
        Cell::Text(&["spec", "nodeName"]),
        Cell::Bool(&["status", "attached"]),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn source(source: &Field, out: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => out.push(source.required(ONE)),
        (true, true) => out.push(source.forbidden(ONE)),
        (false, true) if name.text().is_empty() => {
            out.push(name.required("must specify non empty persistentVolumeName"));
        }
        _ => {}
    }
}
