//! Binding a pod to a node: `spec.nodeName`, the scheduled condition and what the scheduler passes
//! along, in one transaction.
//!
//! Why not a plain update: nothing else may set the node, and two schedulers must not both win.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use crate::api::admission::Operation;
use crate::api::context::{Attributes, RequestContext};
use crate::api::handlers::admit::Admission;
use crate::api::handlers::write;
use crate::api::server::{Api, Call};
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Gvr, Value, meta, time};

/// A POST to the old `bindings` collection, which names the pod in its body only.
pub async fn bind_by_name(
    api: &Arc<Api>,
    attributes: &Attributes,
    request: &RequestContext,
    body: Value,
    dry_run: bool,
) -> Result<Status> {
    let pods = Gvr::new("", "v1", "pods");
    let kind = api.registry.load().resource(&pods).cloned().ok_or_else(Status::no_such_path)?;
    let attributes = Attributes {
        gvr: Some(pods),
        subresource: "binding".to_owned(),
        name: meta::name(&body).to_owned(),
        ..attributes.clone()
    };
    let call = Call {
        api: api.clone(),
        kind,
        attributes,
        request: request.clone(),
        warnings: parking_lot::Mutex::default(),
    };
    bind(&call, &body, dry_run).await
}

/// Binds the pod that `call` names as `body` says.
pub async fn bind(call: &Call, body: &Value, dry_run: bool) -> Result<Status> {
    let name = call.attributes.name.as_str();
    if meta::name(body) != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    check(body)?;
    let mut admission = Admission::new(call, Operation::Create, name, None, dry_run);
    let body = admission.mutate(body.clone()).await?;
    let body = admission.validate(body).await?;
    let now = call.api.clock.now();
    write::rewrite(call, name, dry_run, &|pod| {
        assign(pod, &body, now).map_err(|why| {
            let gvr = Gvr::new("", "v1", "pods/binding");
            Status::conflict(&gvr, name, &why)
        })
    })
    .await?;
    Ok(Status { status: "Success".to_owned(), code: 201, ..Status::default() })
}

fn check(binding: &Value) -> Result<()> {
    let mut errors = Vec::new();
    let kind = meta::text(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if meta::text(binding, &["target", "name"]).is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Binding", meta::name(binding), &errors))
}

fn assign(pod: &mut Value, binding: &Value, now: Timestamp) -> std::result::Result<(), String> {
    let name = meta::name(pod).to_owned();
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let want = meta::text(binding, &["metadata", field]);
        let have = meta::text(pod, &["metadata", field]);
        if !want.is_empty() && want != have {
            return Err(format!(
                "Precondition failed: {what} in precondition: {want}, {what} in object meta: {have}"
            ));
        }
    }
    if meta::is_deleting(pod) {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = meta::text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    let gates = meta::at(pod, &["spec", "schedulingGates"]).and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    meta::set(pod, &["spec", "nodeName"], meta::text(binding, &["target", "name"]));
    meta::remove(pod, &["status", "nominatedNodeName"]);
    for field in ["annotations", "labels"] {
        let given = meta::at(binding, &["metadata", field]).and_then(Value::as_object);
        for (key, value) in given.into_iter().flatten() {
            meta::set(pod, &["metadata", field, key], value.clone());
        }
    }
    set_condition(pod, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(())
}

/// Sets a condition of a pod's status; its time moves only when its status does.
pub fn set_condition(pod: &mut Value, mut condition: Value, now: Timestamp) {
    if !meta::at(pod, &["status", "conditions"]).is_some_and(Value::is_array) {
        meta::set(pod, &["status", "conditions"], json!([]));
    }
    let list = meta::at_mut(pod, &["status", "conditions"]).and_then(Value::as_array_mut);
    let Some(list) = list else { return };
    let place = list.iter().position(|one| one["type"] == condition["type"]);
    let same = place.filter(|at| list[*at]["status"] == condition["status"]);
    let since = same.and_then(|at| list[at].get("lastTransitionTime").cloned());
    condition["lastTransitionTime"] = since.unwrap_or_else(|| time::seconds(now).into());
    condition["lastProbeTime"] = Value::Null;
    match place {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let mut binding = json!({"metadata": {"name": "p", "uid": "other",
            "annotations": {"a": "b"}}, "target": {"name": "n1"}});
        assert!(assign(&mut pod, &binding, now).unwrap_err().contains("UID"));
        binding["metadata"]["uid"] = json!("u");
        assign(&mut pod, &binding, now).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        let condition = &pod["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["lastTransitionTime"]),
            (&json!("True"), &json!("2023-11-14T22:13:20Z"))
        );
        assert_eq!(
            assign(&mut pod, &binding, now).unwrap_err(),
            "pod p is already assigned to node \"n1\""
        );
    }
}
