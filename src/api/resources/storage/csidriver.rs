//! CSIDriver.

use serde_json::json;

use super::super::columns::{AGE, Cell, boolean, col, list, texts};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use crate::object::{Value, meta};

/// The CSIDriver's strategy.
pub(in super::super) const CSI_DRIVER: Declared = Declared {
    defaults,
    rules: &[
        ("spec.fsGroupPolicy", Rule::MayBeOneOf(&["File", "None", "ReadWriteOnceWithFSType"])),
        ("spec.tokenRequests", Rule::Check(tokens)),
        ("spec.volumeLifecycleModes[]", Rule::OneOf(&["Ephemeral", "Persistent"])),
    ],
    immutable: &["spec.attachRequired", "spec.volumeLifecycleModes"],
    generation: true,
    unconditional: false,
    columns: &[
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        col("TokenRequests"),
        boolean("RequiresRepublish"),
        col("Modes"),
        AGE,
    ],
    cells: &[
        Cell::Bool(&["spec", "attachRequired"]),
        Cell::Bool(&["spec", "podInfoOnMount"]),
        Cell::Bool(&["spec", "storageCapacity"]),
        Cell::Made(|object| {
            let audiences: Vec<&str> = list(object, &["spec", "tokenRequests"])
                .iter()
                .map(|request| meta::text(request, &["audience"]))
                .collect();
            or_unset(&audiences)
        }),
        Cell::Bool(&["spec", "requiresRepublish"]),
        Cell::Made(|object| or_unset(&texts(object, &["spec", "volumeLifecycleModes"]))),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn or_unset(texts: &[&str]) -> Value {
    if texts.is_empty() { "<unset>".into() } else { texts.join(",").into() }
}

fn defaults(object: &mut Value) {
    let Some(spec) = child_mut(object, &["spec"]) else { return };
    fill(spec, "attachRequired", true);
    fill(spec, "podInfoOnMount", false);
    fill(spec, "storageCapacity", false);
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    fill(spec, "volumeLifecycleModes", json!(["Persistent"]));
    fill(spec, "requiresRepublish", false);
    fill(spec, "seLinuxMount", false);
}

fn tokens(list: &Field, out: &mut Errors) {
    for (at, request) in list.items().enumerate() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        let twice =
            list.items().take(at).any(|other| other.get("audience").text() == audience.text());
        if twice {
            out.push(audience.duplicate());
        }
        if seconds.int().is_some_and(|seconds| seconds < 600) {
            out.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.int().is_some_and(|seconds| seconds > 1 << 32) {
            out.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
}
