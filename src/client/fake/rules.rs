//! What the fake server knows about kinds: defaults, the split of spec and status, deletion.
//!
//! Why so little: only what a loop under test can observe. The real rules are the API server's.

use jiff::Timestamp;
use serde_json::json;

use super::propagation_finalizer;
use crate::client::{DeleteOptions, PatchKind, Propagation, Target};
use crate::object::status::Result;
use crate::object::{Gvr, Status, Value, meta, patch, schema, time};

/// Resources with a status that only the `status` subresource writes.
const WITH_STATUS: &[&str] = &[
    "cronjobs",
    "daemonsets",
    "deployments",
    "horizontalpodautoscalers",
    "ingresses",
    "jobs",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "poddisruptionbudgets",
    "pods",
    "replicasets",
    "replicationcontrollers",
    "resourcequotas",
    "services",
    "statefulsets",
];
/// The seconds of grace of a pod that names none.
const POD_GRACE_SECONDS: i64 = 30;

/// Fills defaults and takes away what a creator may not say.
pub(super) fn prepare_create(gvr: &Gvr, object: &mut Value, addresses: &mut u32) {
    let resource = gvr.resource.as_str();
    if WITH_STATUS.contains(&resource) {
        if resource != "nodes" {
            meta::remove(object, &["status"]);
        }
        meta::set(object, &["metadata", "generation"], 1);
    }
    match resource {
        "namespaces" => {
            meta::set(object, &["spec", "finalizers"], json!(["kubernetes"]));
            meta::set(object, &["status", "phase"], "Active");
            let name = meta::name(object).to_owned();
            meta::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        "pods" => {
            meta::set(object, &["status", "phase"], "Pending");
            fill(object, "terminationGracePeriodSeconds", || json!(POD_GRACE_SECONDS));
            fill(object, "restartPolicy", || json!("Always"));
        }
        "deployments" => {
            fill(object, "replicas", || json!(1));
            fill(object, "revisionHistoryLimit", || json!(10));
            fill(object, "progressDeadlineSeconds", || json!(600));
            fill(object, "strategy", || json!({"type": "RollingUpdate"}));
            if meta::text(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
                for field in ["maxSurge", "maxUnavailable"] {
                    let path = ["spec", "strategy", "rollingUpdate", field];
                    if meta::at(object, &path).is_none() {
                        meta::set(object, &path, "25%");
                    }
                }
            }
        }
        "replicasets" => fill(object, "replicas", || json!(1)),
        "replicationcontrollers" => {
            fill(object, "replicas", || json!(1));
            let path = ["spec", "template", "metadata", "labels"];
            let labels = meta::at(object, &path).cloned().unwrap_or_else(|| json!({}));
            fill(object, "selector", || labels);
        }
        "jobs" => prepare_job(object),
        "services" => prepare_service(object, addresses),
        _ => {}
    }
}

fn fill(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    if meta::at(object, &["spec", field]).is_none_or(Value::is_null) {
        meta::set(object, &["spec", field], value());
    }
}

fn prepare_job(object: &mut Value) {
    let alone = ["completions", "parallelism"]
        .iter()
        .all(|field| meta::at(object, &["spec", field]).is_none());
    if alone {
        fill(object, "completions", || json!(1));
    }
    fill(object, "parallelism", || json!(1));
    fill(object, "backoffLimit", || json!(6));
    fill(object, "completionMode", || json!("NonIndexed"));
    fill(object, "suspend", || json!(false));
    fill(object, "podReplacementPolicy", || json!("TerminatingOrFailed"));
    if meta::at(object, &["spec", "manualSelector"]) == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (meta::uid(object).to_owned(), meta::name(object).to_owned());
    for (label, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        let path = ["spec", "template", "metadata", "labels", label];
        meta::set(object, &path, value.as_str());
    }
    let labels = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    meta::set(object, &["spec", "selector"], labels);
}

fn prepare_service(object: &mut Value, addresses: &mut u32) {
    fill(object, "type", || json!("ClusterIP"));
    fill(object, "sessionAffinity", || json!("None"));
    if meta::text(object, &["spec", "type"]) != "ExternalName" {
        *addresses += 1;
        let address = format!("10.43.1.{}", *addresses % 250 + 1);
        fill(object, "clusterIP", || json!(address));
        let address = meta::text(object, &["spec", "clusterIP"]).to_owned();
        fill(object, "clusterIPs", || json!([address]));
        fill(object, "ipFamilies", || json!(["IPv4"]));
        fill(object, "ipFamilyPolicy", || json!("SingleStack"));
    }
    let ports = meta::at_mut(object, &["spec", "ports"]).and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        if let Some(port) = port.as_object_mut() {
            port.entry("protocol").or_insert_with(|| json!("TCP"));
            port.entry("targetPort").or_insert(number);
        }
    }
}

/// What an update makes of the old object and the body.
pub(super) fn merge_update(gvr: &Gvr, subresource: &str, old: &Value, new: Value) -> Result<Value> {
    let mut merged = match subresource {
        "" => new,
        // Upstream's status strategies keep metadata, too, but for finalizers and annotations that
        // some take; controllers under test rely on none of these.
        "status" => {
            let mut merged = old.clone();
            copy(&new, &mut merged, &["status"]);
            merged
        }
        "finalize" => {
            let mut merged = old.clone();
            copy(&new, &mut merged, &["spec", "finalizers"]);
            merged
        }
        _ => return Err(Status::no_such_path()),
    };
    for kept in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "resourceVersion",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        copy(old, &mut merged, &["metadata", kept]);
    }
    if subresource.is_empty() && WITH_STATUS.contains(&gvr.resource.as_str()) {
        copy(old, &mut merged, &["status"]);
        if old.get("spec") != merged.get("spec") {
            meta::set(&mut merged, &["metadata", "generation"], meta::generation(old) + 1);
        }
    }
    Ok(merged)
}

fn copy(from: &Value, to: &mut Value, path: &[&str]) {
    match meta::at(from, path) {
        Some(value) => meta::set(to, path, value.clone()),
        None => {
            meta::remove(to, path);
        }
    }
}

/// Whether nothing holds an object that is being deleted.
pub(super) fn is_finished(gvr: &Gvr, object: &Value) -> bool {
    let grace = meta::at(object, &["metadata", "deletionGracePeriodSeconds"]);
    let held_by_namespace = gvr.resource == "namespaces"
        && meta::at(object, &["spec", "finalizers"])
            .and_then(Value::as_array)
            .is_some_and(|finalizers| !finalizers.is_empty());
    meta::is_deleting(object)
        && meta::finalizers(object).is_empty()
        && grace.and_then(Value::as_i64).unwrap_or(0) == 0
        && !held_by_namespace
}

fn grace_seconds(gvr: &Gvr, object: &Value, options: &DeleteOptions) -> i64 {
    if gvr.resource != "pods" {
        return 0;
    }
    let phase = meta::text(object, &["status", "phase"]);
    let unscheduled = meta::text(object, &["spec", "nodeName"]).is_empty();
    if unscheduled || phase == "Succeeded" || phase == "Failed" {
        return 0;
    }
    let own = meta::at(object, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    options.grace_period_seconds.or(own).unwrap_or(POD_GRACE_SECONDS).max(0)
}

/// Marks an object as being deleted, as upstream's `BeforeDelete` and finalizer rules do.
pub(super) fn begin_deletion(
    gvr: &Gvr,
    object: &mut Value,
    options: &DeleteOptions,
    now: Timestamp,
) {
    let grace = grace_seconds(gvr, object, options);
    let present = meta::at(object, &["metadata", "deletionGracePeriodSeconds"]);
    let present = present.and_then(Value::as_i64);
    let fresh = !meta::is_deleting(object);
    if fresh || present.is_some_and(|present| grace < present) {
        let end = now + std::time::Duration::from_secs(grace.unsigned_abs());
        meta::set(object, &["metadata", "deletionTimestamp"], time::seconds(end));
        meta::set(object, &["metadata", "deletionGracePeriodSeconds"], grace);
    }
    if fresh {
        let generation = meta::generation(object);
        if generation > 0 {
            meta::set(object, &["metadata", "generation"], generation + 1);
        }
        if gvr.resource == "namespaces" {
            meta::set(object, &["status", "phase"], "Terminating");
        }
    }
    let orphans = matches!(gvr.resource.as_str(), "replicationcontrollers" | "jobs");
    let default = if orphans { Propagation::Orphan } else { Propagation::Background };
    if options.propagation.is_none() && !fresh {
        return;
    }
    let wanted = propagation_finalizer(options.propagation.unwrap_or(default));
    let mut finalizers: Vec<String> =
        meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let asked = options.propagation.is_some();
    finalizers.retain(|name| {
        let policy = name == "orphan" || name == "foregroundDeletion";
        !(asked && policy && Some(name.as_str()) != wanted)
    });
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|name| name == wanted)
    {
        finalizers.push(wanted.to_owned());
    }
    if finalizers.is_empty() {
        meta::remove(object, &["metadata", "finalizers"]);
    } else {
        meta::set(object, &["metadata", "finalizers"], json!(finalizers));
    }
}

/// Puts a pod on the node that a Binding names.
pub(super) fn bind(target: &Target, pod: &mut Value, body: &Value, now: Timestamp) -> Result<()> {
    let node = meta::text(body, &["target", "name"]);
    let present = meta::text(pod, &["spec", "nodeName"]);
    let conflict = |why: String| Err(Status::conflict(&target.gvr, &target.name, &why));
    if meta::is_deleting(pod) {
        return conflict(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            target.name
        ));
    }
    if !present.is_empty() {
        return conflict(format!("pod {} is already assigned to node {present:?}", target.name));
    }
    meta::set(pod, &["spec", "nodeName"], node);
    let conditions = meta::at_mut(pod, &["status", "conditions"]);
    if let Some(conditions) = conditions {
        let mut list: Vec<Value> = conditions.as_array().cloned().unwrap_or_default();
        list.retain(|condition| meta::text(condition, &["type"]) != "PodScheduled");
        list.push(json!({"type": "PodScheduled", "status": "True",
            "lastTransitionTime": time::seconds(now)}));
        *conditions = json!(list);
    }
    Ok(())
}

/// Applies a patch to an object.
pub(super) fn patch(object: &mut Value, kind: PatchKind, body: &Value) -> Result<()> {
    *object = match kind {
        PatchKind::Merge => patch::merge::apply(object, body),
        PatchKind::Json => patch::json::apply(object, body)?,
        PatchKind::Strategic => {
            let root = meta::gvk(object).and_then(|gvk| schema::builtin().root(&gvk));
            let Some(root) = root else {
                return Err(Status::bad_request(
                    "a strategic patch needs an object of a known kind",
                ));
            };
            patch::strategic::apply(root, object, body)?
        }
        PatchKind::Apply => {
            let text = "the fake server keeps no managedFields and has no apply patch";
            return Err(Status::unsupported_media_type(text));
        }
    };
    Ok(())
}
