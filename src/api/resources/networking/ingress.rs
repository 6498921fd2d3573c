//! Ingress.
//!
//! Why paths are so strictly read: what two proxies read differently lets a request slip past the
//! rule that was meant for it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use super::super::columns::{AGE, Cell, col, list, or};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The Ingress's strategy.
pub(in super::super) const INGRESS: Declared = Declared {
    rules: &[
        ("spec", Rule::Check(backend_or_rules)),
        ("spec.rules[]", Rule::Check(rule)),
        ("spec.tls[].hosts[]", Rule::Check(host)),
        ("spec.tls[].secretName", Rule::MayBe(names::dns_subdomain)),
        ("spec.ingressClassName", Rule::MayBe(names::dns_subdomain)),
        ("", Rule::Check(class_annotation)),
    ],
    status_rules: &[
        ("status.loadBalancer.ingress[].ip", Rule::MayBe(names::ip)),
        ("status.loadBalancer.ingress[].hostname", Rule::MayBe(names::dns_subdomain)),
    ],
    generation: true,
    new_status: || Some(json!({ "loadBalancer": {} })),
    columns: &[col("Class"), col("Hosts"), col("Address"), col("Ports"), AGE],
    cells: &[
        Cell::Or(&["spec", "ingressClassName"], "<none>"),
        Cell::Made(hosts),
        Cell::Made(addresses),
        Cell::Made(|object| {
            let plain = list(object, &["spec", "tls"]).is_empty();
            if plain { "80".into() } else { "80, 443".into() }
        }),
        Cell::Age,
    ],
    ..Declared::NONE
};

const CLASS: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const SHOWN_MAX: usize = 3;

fn class_annotation(root: &Field, out: &mut Errors) {
    // Only a new Ingress is told: older ones may have both.
    if !meta::resource_version(root.value()).is_empty() {
        return;
    }
    let old = meta::text(root.value(), &["metadata", "annotations", CLASS]);
    let new = meta::text(root.value(), &["spec", "ingressClassName"]);
    if !old.is_empty() && !new.is_empty() && old != new {
        let why = "must match `ingressClassName` when both are specified";
        out.push(FieldError::invalid(format!("annotations.{CLASS}"), old, why));
    }
}

fn backend_or_rules(spec: &Field, out: &mut Errors) {
    let (default, rules) = (spec.get("defaultBackend"), spec.get("rules"));
    if default.is_set() {
        backend(&default, out);
    } else if rules.is_empty() {
        let why = "either `defaultBackend` or `rules` must be specified";
        out.push(spec.invalid_as(rules.value().clone(), why));
    }
}

fn host(host: &Field, out: &mut Errors) {
    if host.text().contains('*') {
        validate::format(host, names::wildcard_subdomain, out);
    } else {
        validate::format(host, names::dns_subdomain, out);
    }
}

fn rule(rule: &Field, out: &mut Errors) {
    let name = rule.get("host");
    if name.text().parse::<IpAddr>().is_ok() {
        out.push(name.invalid("must be a DNS name, not an IP address"));
    }
    if !name.text().is_empty() {
        host(&name, out);
    }
    let http = rule.get("http");
    if !http.is_set() {
        return;
    }
    let paths = http.get("paths");
    validate::required(&paths, out);
    paths.items().for_each(|one| path(&one, out));
}

fn path(item: &Field, out: &mut Errors) {
    let (path, kind) = (item.get("path"), item.get("pathType"));
    let text = path.text();
    match kind.text() {
        "" => {
            out.push(kind.required("pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                out.push(path.invalid_as(text, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(sequence) {
                    out.push(path.invalid(format!("must not contain '{sequence}'")));
                }
            }
            for suffix in ["/..", "/."] {
                if text.ends_with(suffix) {
                    out.push(path.invalid(format!("cannot end with '{suffix}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                out.push(path.invalid("must be an absolute path"));
            }
        }
        _ => out.push(kind.not_supported(PATH_TYPES)),
    }
    backend(&item.get("backend"), out);
}

fn backend(backend: &Field, out: &mut Errors) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => {
            out.push(backend.invalid_as("", "cannot set both resource and service backends"));
        }
        (true, false) => {
            validate::optional_format(&resource.get("apiGroup"), names::dns_subdomain, out);
            for name in ["kind", "name"] {
                validate::required_format(&resource.get(name), names::path_segment, out);
            }
        }
        (false, true) => {
            validate::required_format(&service.get("name"), names::dns_label, out);
            let port = service.get("port");
            let (name, number) = (port.get("name"), port.get("number"));
            match (name.text(), number.int().unwrap_or(0)) {
                ("", 0) => out.push(backend.required("port name or number is required")),
                ("", _) => validate::port_number(&number, out),
                (_, 0) => validate::format(&name, names::port_name, out),
                _ => out.push(backend.invalid_as("", "cannot set both port name & port number")),
            }
        }
        (false, false) => {
            out.push(backend.invalid_as("", "resource or service backend is required"));
        }
    }
}

fn hosts(object: &Value) -> Value {
    let rules = list(object, &["spec", "rules"]);
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        let host = meta::text(rule, &["host"]);
        more |= shown.len() == SHOWN_MAX;
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    if shown.is_empty() {
        return "*".into();
    }
    let text = shown.join(",");
    if more { format!("{text} + {} more...", rules.len() - SHOWN_MAX).into() } else { text.into() }
}

fn addresses(object: &Value) -> Value {
    let given: BTreeSet<&str> = list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|one| or(meta::text(one, &["ip"]), meta::text(one, &["hostname"])))
        .filter(|address| !address.is_empty())
        .collect();
    given.into_iter().collect::<Vec<_>>().join(",").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::errors_of_create;

    #[test]
    fn paths_hosts_and_backends_are_checked() {
        let path = |kind: &str, path: &str, port: Value| {
            json!({"path": path, "pathType": kind,
                   "backend": {"service": {"name": "s", "port": port}}})
        };
        let object = json!({"spec": {"rules": [
            {"host": "a.b", "http": {"paths": [path("Prefix", "/a", json!({"number": 80}))]}},
            {"host": "1.2.3.4", "http": {"paths": [
                path("Exact", "/a//b", json!({"name": "http", "number": 80}))]}},
        ]}});
        assert_eq!(
            errors_of_create(&INGRESS, &object),
            [
                "spec.rules[1].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP \
                 address",
                "spec.rules[1].http.paths[0].path: Invalid value: \"/a//b\": must not contain \
                 '//'",
                "spec.rules[1].http.paths[0].backend: Invalid value: \"\": cannot set both port \
                 name & port number",
            ]
        );
        assert_eq!(hosts(&object), "a.b,1.2.3.4");
        assert_eq!(
            errors_of_create(&INGRESS, &json!({"spec": {}})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
    }
}
