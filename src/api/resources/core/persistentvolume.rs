//! PersistentVolume.
//!
//! Why its source is fixed: data may lie there already.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, texts, wide};
use super::super::diff::unified;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::podspec::scheduling;
use super::super::{names, validate};
use super::persistentvolumeclaim::{
    VOLUME_MODES, access_modes, amount, class, or_unset, phase, short_modes,
};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::quantity::Quantity;
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The PersistentVolume's strategy.
pub(in super::super) struct PersistentVolume;

const RECLAIM: &[&str] = &["Delete", "Recycle", "Retain"];
/// The sources a volume may have; one of them.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = child_mut(object, &["spec"]) {
            fill(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill(spec, "volumeMode", "Filesystem");
        }
        if let Some(path) = child_mut(object, &["spec", "hostPath"]) {
            path.entry("type").or_insert_with(|| "".into());
        }
        if meta::text(object, &["status", "phase"]).is_empty() {
            meta::set(object, &["status", "phase"], "Pending");
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
        check(&Field::root(object).get("spec"), &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource == "status" {
            return out;
        }
        check(&Field::root(new).get("spec"), &mut out);
        let source = |object: &Value| -> Value {
            let spec = object.get("spec").and_then(Value::as_object).into_iter().flatten();
            let own = spec.filter(|(name, _)| SOURCES.contains(&name.as_str()));
            own.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let (now, before) = (source(new), source(old));
        if !validate::same(&now, &before) {
            let diff = unified(&before, &now);
            out.push(FieldError::forbidden(
                "spec.persistentvolumesource",
                format!("spec.persistentvolumesource is immutable after creation\n{diff}"),
            ));
        }
        let mode = |object: &Value| meta::text(object, &["spec", "volumeMode"]).to_owned();
        if mode(new) != mode(old) {
            out.push(FieldError::invalid("volumeMode", mode(new), validate::IMMUTABLE));
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Capacity"),
            col("Access Modes"),
            col("Reclaim Policy"),
            col("Status"),
            col("Claim"),
            col("StorageClass"),
            col("VolumeAttributesClass"),
            col("Reason"),
            AGE,
            wide("VolumeMode"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let text = |path: &[&str]| meta::text(object, path);
        let claim = match meta::at(object, &["spec", "claimRef"]) {
            Some(claim) => {
                format!("{}/{}", meta::text(claim, &["namespace"]), meta::text(claim, &["name"]))
            }
            None => String::new(),
        };
        vec![
            amount(object, &["spec", "capacity", "storage"]).into(),
            short_modes(&texts(object, &["spec", "accessModes"])).into(),
            text(&["spec", "persistentVolumeReclaimPolicy"]).into(),
            phase(object).into(),
            claim.into(),
            class(object).into(),
            or_unset(object, "volumeAttributesClassName").into(),
            text(&["status", "reason"]).into(),
            age(object, now).into(),
            or_unset(object, "volumeMode").into(),
        ]
    }
}

fn check(spec: &Field, out: &mut Errors) {
    let (modes, capacity) = (spec.get("accessModes"), spec.get("capacity"));
    validate::required(&modes, out);
    access_modes(&modes, out);
    validate::required(&capacity, out);
    if capacity.len() > 1 || !capacity.key("storage").is_set() {
        out.push(capacity.not_supported(&["storage"]));
    }
    for (_, size) in capacity.entries() {
        if let Some(size_is) = validate::quantity(size.value()).filter(|it| *it <= Quantity::ZERO) {
            out.push(size.invalid_as(size_is.to_string(), validate::NOT_POSITIVE));
        }
    }
    validate::optional_one_of(&spec.get("persistentVolumeReclaimPolicy"), RECLAIM, out);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            scheduling::node_selector(&required, out);
        } else {
            out.push(required.required("must specify required node constraints"));
        }
    }
    source(spec, out);
    validate::optional_format(&spec.get("storageClassName"), names::dns_subdomain, out);
    validate::optional_one_of(&spec.get("volumeMode"), VOLUME_MODES, out);
}

fn source(spec: &Field, out: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let source = spec.get(name);
        if !source.is_set() {
            continue;
        }
        if found {
            out.push(source.forbidden("may not specify more than 1 volume type"));
        }
        found = true;
    }
    if !found {
        out.push(spec.required("must specify a volume type"));
    }
    let (host, local) = (spec.get("hostPath"), spec.get("local"));
    for directory in [&host, &local].into_iter().filter(|source| source.is_set()) {
        validate::required(&directory.get("path"), out);
        validate::no_backsteps(&directory.get("path"), out);
    }
    let recycled = spec.get("persistentVolumeReclaimPolicy");
    if host.get("path").text() == "/" && recycled.text() == "Recycle" {
        out.push(recycled.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    if local.is_set() && !spec.get("nodeAffinity").is_set() {
        out.push(spec.get("nodeAffinity").required("Local volume requires node affinity"));
    }
    let csi = spec.get("csi");
    if csi.is_set() {
        validate::required(&csi.get("driver"), out);
        validate::required(&csi.get("volumeHandle"), out);
    }
}
