//! ControllerRevision.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;
use crate::object::{GroupVersion, Value, meta};

/// The ControllerRevision's strategy.
pub(in super::super) const CONTROLLER_REVISION: Declared = Declared {
    rules: &[("revision", Rule::NonNegative), ("data", Rule::Check(data))],
    immutable: &["data"],
    columns: &[col("Controller"), col("Revision"), AGE],
    cells: &[Cell::Made(controller), Cell::Int(&["revision"]), Cell::Age],
    ..Declared::NONE
};

fn data(field: &Field, out: &mut Errors) {
    match field.value() {
        Value::Null => out.push(field.required("data is mandatory")),
        Value::Object(_) => {}
        _ => out.push(field.required("data must be a valid JSON object")),
    }
}

fn controller(object: &Value) -> Value {
    let Some(owner) = meta::controller_of(object) else { return "<none>".into() };
    let group = GroupVersion::parse(meta::text(owner, &["apiVersion"]))
        .map(|version| version.group)
        .unwrap_or_default();
    let kind = meta::text(owner, &["kind"]).to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    format!("{kind}/{}", meta::text(owner, &["name"])).into()
}
