//! IngressClass.

use super::super::columns::{AGE, Cell, col, name_column};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The IngressClass's strategy.
pub(in super::super) const INGRESS_CLASS: Declared = Declared {
    defaults: |object| {
        if let Some(parameters) = child_mut(object, &["spec", "parameters"]) {
            fill(parameters, "scope", "Cluster");
        }
    },
    rules: &[("spec", Rule::Check(check))],
    immutable: &["spec.controller"],
    generation: true,
    columns: &[name_column(0), col("Controller"), col("Parameters"), AGE],
    cells: &[
        Cell::Made(name),
        Cell::Text(&["spec", "controller"]),
        Cell::Made(parameters),
        Cell::Age,
    ],
    ..Declared::NONE
};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const CONTROLLER_BYTES_MAX: usize = 250;

fn name(object: &Value) -> Value {
    let name = meta::name(object);
    if meta::text(object, &["metadata", "annotations", DEFAULT]) == "true" {
        return format!("{name} (default)").into();
    }
    name.into()
}

fn parameters(object: &Value) -> Value {
    let Some(parameters) = meta::at(object, &["spec", "parameters"]) else {
        return "<none>".into();
    };
    let text = |name: &str| meta::text(parameters, &[name]);
    let kind = match text("apiGroup") {
        "" => text("kind").to_owned(),
        group => format!("{}.{group}", text("kind")),
    };
    format!("{kind}/{}", text("name")).into()
}

fn check(spec: &Field, out: &mut Errors) {
    let controller = spec.get("controller");
    if controller.text().len() > CONTROLLER_BYTES_MAX {
        out.push(controller.too_long(CONTROLLER_BYTES_MAX));
    }
    validate::domain_path(&controller, out);
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return;
    }
    validate::optional_format(&parameters.get("apiGroup"), names::dns_subdomain, out);
    for name in ["kind", "name"] {
        validate::required_format(&parameters.get(name), names::path_segment, out);
    }
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.text() {
        "Namespace" if !namespace.is_set() => {
            out.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => validate::format(&namespace, names::dns_label, out),
        "Cluster" if namespace.is_set() => {
            out.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        other => {
            let allowed = ["Cluster", "Namespace"];
            out.push(FieldError::not_supported(scope.path(), other, &allowed));
        }
    }
}
