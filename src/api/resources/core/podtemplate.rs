//! PodTemplate.

use super::super::columns::{Cell, col, containers, labels};
use super::super::declared::Declared;
use super::super::podspec::{self, workload};
use super::super::rules::Rule;
use crate::api::kind::Column;
use crate::object::meta;

const COLUMNS: &[Column] = &[col("Containers"), col("Images"), col("Pod Labels")];

/// The PodTemplate's strategy.
pub(in super::super) const POD_TEMPLATE: Declared = Declared {
    defaults: |object| workload::default_template(object, &["template", "spec"]),
    rules: &[("template", Rule::Check(podspec::template))],
    generation: true,
    columns: COLUMNS,
    cells: &[
        Cell::Made(|object| containers(object, &["template", "spec"])[0].clone()),
        Cell::Made(|object| containers(object, &["template", "spec"])[1].clone()),
        Cell::Made(|object| {
            let map = meta::at(object, &["template", "metadata", "labels"]);
            labels(map.and_then(|map| map.as_object())).into()
        }),
    ],
    ..Declared::NONE
};
