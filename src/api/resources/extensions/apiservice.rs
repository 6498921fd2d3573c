//! APIService.

use serde_json::json;

use super::super::columns::{AGE, Cell, col, condition};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The APIService's strategy.
pub(in super::super) const API_SERVICE: Declared = Declared {
    defaults: |object| {
        if let Some(service) = child_mut(object, &["spec", "service"]) {
            fill(service, "port", 443);
        }
    },
    rules: &[("", Rule::Check(check))],
    new_status: || Some(json!({})),
    columns: &[col("Service"), col("Available"), AGE],
    cells: &[Cell::Made(service), Cell::Made(available), Cell::Age],
    ..Declared::NONE
};

fn service(object: &Value) -> Value {
    match meta::at(object, &["spec", "service"]).filter(|service| service.is_object()) {
        Some(service) => {
            let (namespace, name) =
                (meta::text(service, &["namespace"]), meta::text(service, &["name"]));
            format!("{namespace}/{name}").into()
        }
        None => "Local".into(),
    }
}

fn available(object: &Value) -> Value {
    match condition(object, "Available") {
        "" => "Unknown".into(),
        "True" => "True".into(),
        other => {
            let own = super::super::columns::list(object, &["status", "conditions"]).iter();
            let reason = own
                .filter(|one| meta::text(one, &["type"]) == "Available")
                .map(|one| meta::text(one, &["reason"]))
                .next()
                .unwrap_or("");
            format!("{other} ({reason})").into()
        }
    }
}

fn check(root: &Field, out: &mut Errors) {
    let spec = root.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let name = meta::name(root.value());
    let expected = format!("{}.{}", version.text(), group.text());
    if name != expected {
        let why = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
        out.push(FieldError::invalid("metadata.name", name, why));
    }
    validate::optional_format(&group, names::dns_subdomain, out);
    validate::required_format(&version, names::dns_1035_label, out);
    for (priority, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let field = spec.get(priority);
        let number = field.int().unwrap_or(0);
        if number <= 0 || number > max {
            out.push(field.invalid_as(number, format!("must be positive and less than {max}")));
        }
    }
    let (service, insecure) = (spec.get("service"), spec.get("insecureSkipTLSVerify").flag());
    let bundle = spec.get("caBundle");
    if !service.is_set() {
        if !bundle.is_empty() {
            out.push(bundle.invalid_omitting_value("local APIServices may not have a caBundle"));
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            out.push(spec.get("insecureSkipTLSVerify").invalid(why));
        }
        return;
    }
    validate::required(&service.get("namespace"), out);
    validate::required(&service.get("name"), out);
    validate::port_number(&service.get("port"), out);
    if insecure && !bundle.is_empty() {
        let why = "may not be true if caBundle is present";
        out.push(spec.get("insecureSkipTLSVerify").invalid(why));
    }
}
