//! PersistentVolumeClaim.
//!
//! Why its spec is fixed: quota and binding were decided by it; a bound claim may only grow or
//! change its attributes' class.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, texts, wide};
use super::super::diff::unified;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::quantity::Quantity;
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The PersistentVolumeClaim's strategy.
pub(in super::super) struct PersistentVolumeClaim;

/// How a volume may be mounted.
pub(super) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// A file system or a block device.
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// The old place of the class's name.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Defaults of a claim, also inside a StatefulSet.
pub(in super::super) fn default_claim(claim: &mut Value) {
    if let Some(spec) = child_mut(claim, &["spec"]) {
        fill(spec, "volumeMode", "Filesystem");
    }
    if meta::text(claim, &["status", "phase"]).is_empty() {
        meta::set(claim, &["status", "phase"], "Pending");
    }
}

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        default_claim(object);
        // A data source and its newer reference say the same.
        let source = meta::at(object, &["spec", "dataSource"]).cloned();
        let reference = meta::at(object, &["spec", "dataSourceRef"]).cloned();
        match (source, reference) {
            (Some(source), None) => meta::set(object, &["spec", "dataSourceRef"], source),
            (None, Some(reference)) if meta::text(&reference, &["namespace"]).is_empty() => {
                let group = meta::text(&reference, &["apiGroup"]);
                let kind = meta::text(&reference, &["kind"]);
                let known = (group.is_empty() && kind == "PersistentVolumeClaim")
                    || (group == "snapshot.storage.k8s.io" && kind == "VolumeSnapshot");
                if known {
                    meta::set(object, &["spec", "dataSource"], reference);
                }
            }
            _ => {}
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "phase": "Pending" });
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        validate_spec(&Field::root(object).get("spec"), &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(new);
        if write.subresource == "status" {
            let status = root.get("status");
            for (_, amount) in status.get("capacity").entries() {
                basic_amount(&amount, &mut out);
            }
            return out;
        }
        validate_spec(&root.get("spec"), &mut out);
        spec_stays(new, old, &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Status"),
            col("Volume"),
            col("Capacity"),
            col("Access Modes"),
            col("StorageClass"),
            col("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let volume = meta::text(object, &["spec", "volumeName"]);
        let (capacity, modes) = match volume {
            "" => (String::new(), String::new()),
            _ => (
                amount(object, &["status", "capacity", "storage"]),
                short_modes(&texts(object, &["status", "accessModes"])),
            ),
        };
        vec![
            phase(object).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(object).into(),
            or_unset(object, "volumeAttributesClassName").into(),
            age(object, now).into(),
            or_unset(object, "volumeMode").into(),
        ]
    }
}

/// The phase, or that it is going.
pub(super) fn phase(object: &Value) -> &str {
    if meta::is_deleting(object) {
        return "Terminating";
    }
    meta::text(object, &["status", "phase"])
}

/// The class's name, from its old place first.
pub(super) fn class(object: &Value) -> &str {
    let old = meta::text(object, &["metadata", "annotations", CLASS_ANNOTATION]);
    if old.is_empty() { meta::text(object, &["spec", "storageClassName"]) } else { old }
}

/// A text of the spec, or that it is missing.
pub(super) fn or_unset<'a>(object: &'a Value, name: &str) -> &'a str {
    meta::at(object, &["spec", name]).and_then(Value::as_str).unwrap_or("<unset>")
}

/// The canonical text of a quantity, "0" where there is none.
pub(super) fn amount(object: &Value, path: &[&str]) -> String {
    let amount = meta::at(object, path).and_then(validate::quantity);
    amount.unwrap_or(Quantity::ZERO).to_string()
}

/// Access modes by their initials, in upstream's order.
pub(super) fn short_modes(modes: &[&str]) -> String {
    let pairs = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short = pairs.iter().filter(|(long, _)| modes.contains(long)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

fn basic_amount(field: &Field, out: &mut Errors) {
    if let Some(amount) = validate::quantity(field.value()).filter(Quantity::is_negative) {
        out.push(field.invalid_as(amount.units(), "must be a valid resource quantity"));
    }
}

/// The access modes of a claim or a volume.
pub(super) fn access_modes(modes: &Field, out: &mut Errors) {
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            let path = modes.path();
            out.push(FieldError::not_supported(path, mode.text(), ACCESS_MODES));
        }
    }
    let alone = modes.items().any(|mode| mode.text() == "ReadWriteOncePod");
    let others = modes
        .items()
        .any(|mode| mode.text() != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode.text()));
    if alone && others {
        out.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// A claim's spec, also inside a StatefulSet.
pub(in super::super) fn validate_spec(spec: &Field, out: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        out.push(modes.required("at least 1 access mode is required"));
    }
    validate::label_selector(&spec.get("selector"), out);
    access_modes(&modes, out);
    let resources = spec.get("resources");
    let requests = resources.get("requests");
    // Upstream's path leaves "requests" out.
    let storage = resources.key("storage");
    match validate::quantity(requests.key("storage").value()) {
        None => out.push(storage.required("")),
        Some(amount) if amount <= Quantity::ZERO => {
            out.push(storage.invalid_as(amount.to_string(), validate::NOT_POSITIVE));
        }
        Some(_) => {}
    }
    validate::optional_format(&spec.get("storageClassName"), names::dns_subdomain, out);
    validate::optional_format(&spec.get("volumeAttributesClassName"), names::dns_subdomain, out);
    validate::optional_one_of(&spec.get("volumeMode"), VOLUME_MODES, out);
    data_source(&spec.get("dataSource"), out);
    data_source(&spec.get("dataSourceRef"), out);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    validate::optional_format(&reference.get("namespace"), names::dns_label, out);
    if source.is_set() && reference.is_set() {
        let shown = "dataSource";
        if !reference.get("namespace").text().is_empty() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            out.push(spec.invalid_as(shown, why));
        } else if ["apiGroup", "kind", "name"]
            .iter()
            .any(|name| source.get(name).text() != reference.get(name).text())
        {
            out.push(spec.invalid_as(shown, "must match dataSourceRef"));
        }
    }
}

fn data_source(source: &Field, out: &mut Errors) {
    if !source.is_set() {
        return;
    }
    validate::required(&source.get("name"), out);
    validate::required(&source.get("kind"), out);
    let (group, kind) = (source.get("apiGroup"), source.get("kind").text());
    if group.text().is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        out.push(source.invalid_as(kind, why));
    }
    validate::optional_format(&group, names::dns_subdomain, out);
}

fn spec_stays(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let spec = root.get("spec");
    let size = ["spec", "resources", "requests", "storage"];
    let mut munged = new.clone();
    let mut restore = |path: &[&str]| match meta::at(old, path) {
        Some(value) => meta::set(&mut munged, path, value.clone()),
        None => drop(meta::remove(&mut munged, path)),
    };
    if meta::text(old, &["spec", "volumeName"]).is_empty() {
        restore(&["spec", "volumeName"]);
    }
    let annotation = meta::text(old, &["metadata", "annotations", CLASS_ANNOTATION]);
    let class = meta::text(new, &["spec", "storageClassName"]);
    let had_none = meta::at(old, &["spec", "storageClassName"]).is_none();
    if had_none && (annotation.is_empty() || annotation == class) {
        restore(&["spec", "storageClassName"]);
    }
    if meta::text(new, &["status", "phase"]) == "Bound" {
        restore(&size);
        restore(&["spec", "volumeAttributesClassName"]);
    }
    let (munged, before) =
        (munged.get("spec").unwrap_or(&Value::Null), old.get("spec").unwrap_or(&Value::Null));
    if !validate::same(munged, before) {
        let diff = unified(before, munged);
        out.push(spec.forbidden(format!(
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n{diff}"
        )));
    }
    let amount = |object: &Value, path: &[&str]| {
        meta::at(object, path).and_then(validate::quantity).unwrap_or(Quantity::ZERO)
    };
    let now = amount(new, &size);
    if now < amount(old, &size) && now <= amount(old, &["status", "capacity", "storage"]) {
        let why = "field can not be less than status.capacity";
        out.push(FieldError::forbidden(size.join("."), why));
    }
    let mode = |object: &Value| meta::text(object, &["spec", "volumeMode"]).to_owned();
    if mode(new) != mode(old) {
        out.push(FieldError::invalid("volumeMode", mode(new), validate::IMMUTABLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};

    #[test]
    fn a_claim_asks_for_storage_and_keeps_asking() {
        let claim = |size: &str| {
            created(
                &PersistentVolumeClaim,
                json!({"spec": {"accessModes": ["ReadWriteOnce"],
                                "resources": {"requests": {"storage": size}}}}),
            )
        };
        let old = claim("1Gi");
        assert_eq!(errors_of_create(&PersistentVolumeClaim, &old), Vec::<String>::new());
        let empty = created(&PersistentVolumeClaim, json!({"spec": {}}));
        assert_eq!(
            errors_of_create(&PersistentVolumeClaim, &empty),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
        let texts = errors_of_update(&PersistentVolumeClaim, "", &claim("2Gi"), &old);
        assert!(texts[0].starts_with("spec: Forbidden: spec is immutable after creation except"));
        let mut bound = claim("2Gi");
        bound["status"]["phase"] = "Bound".into();
        assert_eq!(
            errors_of_update(&PersistentVolumeClaim, "", &bound, &old),
            Vec::<String>::new()
        );
    }
}
