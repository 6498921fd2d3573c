//! StatefulSet.
//!
//! Why so little of it may change: identity and storage of its pods hang on the rest.

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, containers, list, number, wide};
use super::super::core::persistentvolumeclaim;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, list_mut, map_mut};
use super::super::podspec::{self, workload};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Map, Value, meta};

/// The StatefulSet's strategy.
pub(in super::super) struct StatefulSet;

const COUNTERS: &[&str] =
    &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
/// What of the spec an update may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];
const RETENTION: &[&str] = &["Delete", "Retain"];

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "podManagementPolicy", "OrderedReady");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        default_strategy(spec);
        if let Some(policy) = map_mut(spec, "persistentVolumeClaimRetentionPolicy") {
            fill(policy, "whenDeleted", "Retain");
            fill(policy, "whenScaled", "Retain");
        }
        for claim in list_mut(spec, "volumeClaimTemplates") {
            if let Some(map) = claim.as_object_mut() {
                fill(map, "apiVersion", "v1");
                fill(map, "kind", "PersistentVolumeClaim");
                persistentvolumeclaim::default_claim(claim);
            }
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "replicas": 0, "availableReplicas": 0 });
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(object);
        let spec = root.get("spec");
        validate_spec(&spec, &mut out);
        for claim in spec.get("volumeClaimTemplates").items() {
            persistentvolumeclaim::validate_spec(&claim.get("spec"), &mut out);
        }
        validate::optional_format(&spec.get("serviceName"), names::dns_label, &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(new);
        if write.subresource == "status" {
            let status = root.get("status");
            let text = "cannot be greater than status.readyReplicas";
            workload::counters(&status, COUNTERS, &["collisionCount"], text, &mut out);
            workload::collisions(&status, old, &mut out);
            return out;
        }
        let spec = root.get("spec");
        validate_spec(&spec, &mut out);
        let fixed = |object: &Value| {
            let mut spec = object.get("spec").cloned().unwrap_or_default();
            MUTABLE.iter().for_each(|name| drop(meta::remove(&mut spec, &[name])));
            spec
        };
        if !validate::same(&fixed(new), &fixed(old)) {
            out.push(spec.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                 'template', 'updateStrategy', 'revisionHistoryLimit', \
                 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
        out
    }

    fn check_name(&self, name: &str) -> Option<String> {
        names::first(names::dns_label, name)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("Ready"), AGE, wide("Containers"), wide("Images")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ready = number(object, &["status", "readyReplicas"]);
        let wanted = number(object, &["spec", "replicas"]);
        let [names, images] = containers(object, &["spec", "template", "spec"]);
        vec![format!("{ready}/{wanted}").into(), age(object, now).into(), names, images]
    }
}

fn default_strategy(spec: &mut Map) {
    let Some(strategy) = map_mut(spec, "updateStrategy") else { return };
    if strategy.get("type").and_then(Value::as_str).unwrap_or("").is_empty() {
        fill(strategy, "type", "RollingUpdate");
        fill(strategy, "rollingUpdate", json!({}));
    }
    if strategy.get("type") == Some(&json!("RollingUpdate"))
        && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
    {
        fill(rolling, "partition", 0);
    }
}

fn validate_spec(spec: &Field, out: &mut Errors) {
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "" => out.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => out.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(&spec.get("updateStrategy"), out);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        validate::optional_one_of(&retention.get(when), RETENTION, out);
    }
    validate::all_non_negative(spec, &["replicas", "minReadySeconds"], out);
    validate::non_negative(&spec.get("ordinals").get("start"), out);
    workload::selector(spec, "statefulset", out);
    let with_claims = template_with_claims(spec.value());
    let whole = spec.named("template", &with_claims);
    validate::selector_matches(&spec.get("selector"), &whole, out);
    podspec::template(&whole, out);
    workload::runs_for_good(&whole, "StatefulSet", out);
}

/// The template as the controller will use it: claims are volumes, names of its own choosing.
fn template_with_claims(spec: &Value) -> Value {
    let mut template = spec.get("template").cloned().unwrap_or_default();
    meta::remove(&mut template, &["spec", "subdomain"]);
    meta::remove(&mut template, &["spec", "hostname"]);
    let claims = list(spec, &["volumeClaimTemplates"]);
    if claims.is_empty() {
        return template;
    }
    let names: Vec<&str> =
        claims.iter().map(|claim| meta::text(claim, &["metadata", "name"])).collect();
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let own = list(&template, &["spec", "volumes"]).iter();
    volumes.extend(own.filter(|own| !names.contains(&meta::text(own, &["name"]))).cloned());
    meta::set(&mut template, &["spec", "volumes"], volumes);
    template
}

fn update_strategy(strategy: &Field, out: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => out.push(strategy.required("")),
        "OnDelete" => {
            if rolling.is_set() {
                out.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => {
            validate::non_negative(&rolling.get("partition"), out);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_set() {
                validate::int_or_percent(&unavailable, out);
                if validate::int_or_percent_number(&unavailable) == 0 {
                    out.push(unavailable.invalid("cannot be 0"));
                }
                validate::at_most_100_percent(&unavailable, out);
            }
        }
        _ => out.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
}
