//! Environment variables and references to fields and keys.
//!
//! Why apart: volumes of the downward API refer to fields by the same rules.

use super::super::field::{Errors, Field};
use super::super::{names, validate};
use crate::object::quantity::Quantity;

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.uid",
];
/// Every field the downward API can convert at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];
const BYTE_DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Where a field reference stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Variable,
    Volume,
}

/// A container's `env`.
pub(super) fn variables(list: &Field, out: &mut Errors) {
    for variable in list.items() {
        validate::required_format(&variable.get("name"), names::env_name, out);
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(&source, variable.get("value").text(), out);
        }
    }
}

fn value_from(source: &Field, value: &str, out: &mut Errors) {
    let mut sources = 0;
    for (name, _) in source.entries() {
        let field = source.get(name);
        if !field.is_set() {
            continue;
        }
        sources += 1;
        match name {
            "fieldRef" => field_reference(&field, Place::Variable, out),
            "resourceFieldRef" => resource_reference(&field, Place::Variable, out),
            "configMapKeyRef" | "secretKeyRef" => key_reference(&field, out),
            "fileKeyRef" => file_reference(&field, out),
            _ => sources -= 1,
        }
    }
    let fault = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
         `fileKeyRef`"
    } else if !value.is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    out.push(source.invalid_as("", fault));
}

/// A reference to a field of the pod.
pub(super) fn field_reference(field: &Field, place: Place, out: &mut Errors) {
    let (version, path) = (field.get("apiVersion"), field.get("fieldPath"));
    if version.text().is_empty() {
        out.push(version.required(""));
        return;
    }
    if path.text().is_empty() {
        out.push(path.required(""));
        return;
    }
    let text = path.text();
    let subscript = text.strip_suffix("']").and_then(|text| text.split_once("['"));
    let name = subscript.map_or(text, |(name, _)| name);
    if version.text() != "v1" {
        let version = version.text();
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        out.push(path.invalid(why));
        return;
    }
    if !KNOWN_FIELDS.contains(&name) {
        let why = format!("error converting fieldPath: field label not supported: {name}");
        out.push(path.invalid(why));
        return;
    }
    let allowed = if place == Place::Variable { ENV_FIELDS } else { VOLUME_FIELDS };
    match subscript {
        Some(("metadata.annotations", key)) => {
            for fault in names::qualified_name(&key.to_lowercase()) {
                out.push(field.invalid_as(key.to_lowercase(), fault));
            }
        }
        Some(("metadata.labels", key)) => {
            for fault in names::qualified_name(key) {
                out.push(field.invalid_as(key, fault));
            }
        }
        Some((name, _)) => out.push(field.invalid_as(name, "does not support subscript")),
        None if !allowed.contains(&name) => out.push(path.not_supported(allowed)),
        None => {}
    }
}

/// A reference to a container's request or limit.
pub(super) fn resource_reference(field: &Field, place: Place, out: &mut Errors) {
    let (container, resource) = (field.get("containerName"), field.get("resource"));
    let name = resource.text();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if place == Place::Volume && container.text().is_empty() {
        out.push(container.required(""));
    } else if name.is_empty() {
        out.push(resource.required(""));
    } else if !RESOURCES.contains(&name) && !huge {
        out.push(resource.not_supported(RESOURCES));
    }
    let divisor = field.get("divisor");
    let Some(amount) = validate::quantity(divisor.value()).filter(|amount| !amount.is_zero())
    else {
        return;
    };
    let (kind, allowed): (&str, &[&str]) = match name.split_once('.').map(|(_, kind)| kind) {
        Some("cpu") => ("cpu", &["1m", "1"]),
        Some("memory") => ("memory", BYTE_DIVISORS),
        Some("ephemeral-storage") => ("local ephemeral storage", BYTE_DIVISORS),
        _ if huge => ("hugepages", BYTE_DIVISORS),
        _ => return,
    };
    if !allowed.contains(&Quantity::to_string(&amount).as_str()) {
        let list = if kind == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
        let why = format!("only divisor's values {list} are supported with the {kind} resource");
        out.push(divisor.invalid_as(name, why));
    }
}

/// A reference to a key of a ConfigMap or Secret.
fn key_reference(field: &Field, out: &mut Errors) {
    validate::format(&field.get("name"), names::dns_subdomain, out);
    validate::required_format(&field.get("key"), names::config_key, out);
}

/// A reference to a key of an env file in a volume.
fn file_reference(field: &Field, out: &mut Errors) {
    validate::required_format(&field.get("key"), names::env_name, out);
    validate::required_format(&field.get("volumeName"), names::dns_label, out);
    let path = field.get("path");
    validate::required(&path, out);
    validate::no_backsteps(&path, out);
}

/// A container's `envFrom`.
pub(super) fn sources(list: &Field, out: &mut Errors) {
    for source in list.items() {
        validate::optional_format(&source.get("prefix"), names::env_name, out);
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let reference = source.get(name);
            if reference.is_set() {
                count += 1;
                validate::required_format(&reference.get("name"), names::dns_subdomain, out);
            }
        }
        if count == 0 {
            let why = "must specify one of: `configMapRef` or `secretRef`";
            out.push(list.invalid_as("", why));
        } else if count > 1 {
            let why = "may not have more than one field specified at a time";
            out.push(list.invalid_as("", why));
        }
    }
}
