//! ResourceSlice.

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::names;
use super::super::rules::Rule;

/// The ResourceSlice's strategy.
pub(in super::super) const RESOURCE_SLICE: Declared = Declared {
    rules: &[
        ("spec.driver", Rule::Is(names::dns_subdomain)),
        ("spec.pool.name", Rule::Required),
        ("spec", Rule::Check(reach)),
    ],
    immutable: &["spec.nodeName", "spec.driver", "spec.pool.name"],
    generation: true,
    columns: &[col("Node"), col("Driver"), col("Pool"), AGE],
    cells: &[
        Cell::Text(&["spec", "nodeName"]),
        Cell::Text(&["spec", "driver"]),
        Cell::Text(&["spec", "pool", "name"]),
        Cell::Age,
    ],
    selectable: &["spec.nodeName", "spec.driver"],
    ..Declared::NONE
};

fn reach(spec: &Field, out: &mut Errors) {
    const TEXT: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                        `perDeviceNodeSelection` is required";
    let ways = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let set = |name: &&str| {
        let field = spec.get(name);
        field.is_set() && field.value() != &serde_json::Value::Bool(false)
    };
    match ways.iter().filter(|way| set(way)).count() {
        0 => out.push(spec.required(TEXT)),
        1 => {}
        _ => out.push(spec.invalid_omitting_value(format!("{TEXT}, but multiple fields are set"))),
    }
}
