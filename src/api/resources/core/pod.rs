//! Pod.
//!
//! Why so much in one kind: a Pod's spec is almost wholly immutable, its status is written by nodes
//! that may be late, and its table shows a state that no single field holds.

mod table;
mod update;

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::list;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, list_mut};
use super::super::{names, podspec};
use crate::api::kind::{Column, Strategy, Write};
use crate::object::status::FieldError;
use crate::object::{Map, Value, meta};

/// The Pod's strategy.
pub(in super::super) struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            podspec::defaults::spec(spec);
            podspec::defaults::pod_only(spec);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        let mut status = json!({ "phase": "Pending" });
        if let Some(spec) = object.get("spec") {
            status["qosClass"] = podspec::resources::quality_of_service(spec).into();
        }
        if !list(object, &["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        meta::set(object, &["status"], status);
        apply_label_keys(object);
    }

    fn prepare_update(&self, write: &Write<'_>, new: &mut Value, old: &Value) {
        match write.subresource {
            "ephemeralcontainers" => update::keep_all_but_ephemeral(new, old),
            "resize" => update::keep_all_but_resources(new, old),
            _ => {}
        }
    }

    fn prepare_status(&self, _write: &Write<'_>, new: &mut Value, old: &Value) {
        update::prepare_status(new, old);
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = validate(object);
        let root = Field::root(object);
        let spec = root.get("spec");
        let ephemeral = spec.get("ephemeralContainers");
        if !ephemeral.is_empty() {
            out.push(ephemeral.forbidden("cannot be set on create"));
        }
        let node = spec.get("nodeName");
        if !node.text().is_empty() && !spec.get("schedulingGates").is_empty() {
            let why = "cannot be set until all schedulingGates have been cleared";
            out.push(node.forbidden(why));
        }
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        match write.subresource {
            "status" => update::validate_status(new, old),
            "ephemeralcontainers" => update::validate_ephemeral(new, old),
            "resize" => update::validate_resize(new, old),
            _ => update::validate(new, old),
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let faults = names::dns_label(meta::name(new));
        if old.is_some() || faults.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising \
             behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        )]
    }

    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let own = meta::at(object, &["spec", "terminationGracePeriodSeconds"]);
        let period = asked.or_else(|| own.and_then(Value::as_i64)).unwrap_or(0);
        let unbound = meta::text(object, &["spec", "nodeName"]).is_empty();
        let ended = matches!(meta::text(object, &["status", "phase"]), "Failed" | "Succeeded");
        Some(match period {
            _ if unbound || ended => 0,
            ..0 => 1,
            _ => period,
        })
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let ips: Vec<&str> =
            list(object, &["status", "podIPs"]).iter().map(|ip| meta::text(ip, &["ip"])).collect();
        let value = |name: &'static str| match name {
            "spec.hostNetwork" => {
                let host = meta::at(object, &["spec", "hostNetwork"]) == Some(&Value::Bool(true));
                host.to_string()
            }
            "status.podIP" => ips.first().map(|ip| (*ip).to_owned()).unwrap_or_default(),
            "status.podIPs" => ips.join(","),
            dotted => {
                let steps: Vec<&str> = dotted.split('.').collect();
                meta::text(object, &steps).to_owned()
            }
        };
        self.selectable_names().iter().map(|name| (*name, value(name))).collect()
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::cells(object, now)
    }
}

/// What a Pod must be like whenever it is written.
fn validate(object: &Value) -> Errors {
    let mut out = Errors::new();
    let root = Field::root(object);
    let (metadata, spec) = (root.get("metadata"), root.get("spec"));
    podspec::pod_annotations(&metadata.get("annotations"), &spec, &mut out);
    podspec::validate(&spec, Some(meta::name(object)), &mut out);
    podspec::pod_only(&spec, &mut out);
    out
}

/// `matchLabelKeys` become requirements on the pod's own labels, so that the scheduler need not
/// look at the pod that a term came from.
fn apply_label_keys(object: &mut Value) {
    let labels = meta::labels(object).cloned().unwrap_or_default();
    let Some(spec) = child_mut(object, &["spec"]) else { return };
    for constraint in list_mut(spec, "topologySpreadConstraints") {
        apply_keys(constraint, "matchLabelKeys", "In", &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(kind) = affinity.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        for term in list_mut(kind, "requiredDuringSchedulingIgnoredDuringExecution") {
            apply_keys(term, "matchLabelKeys", "In", &labels);
            apply_keys(term, "mismatchLabelKeys", "NotIn", &labels);
        }
        for weighted in list_mut(kind, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                apply_keys(term, "matchLabelKeys", "In", &labels);
                apply_keys(term, "mismatchLabelKeys", "NotIn", &labels);
            }
        }
    }
}

fn apply_keys(term: &mut Value, member: &str, operator: &str, labels: &Map) {
    let keys: Vec<String> =
        list(term, &[member]).iter().filter_map(|key| Some(key.as_str()?.to_owned())).collect();
    let Some(selector) = child_mut(term, &["labelSelector"]) else { return };
    for key in keys {
        let Some(value) = labels.get(&key) else { continue };
        let need = json!({ "key": key, "operator": operator, "values": [value] });
        let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(expressions) = expressions.as_array_mut() {
            expressions.push(need);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
               "metadata": {"name": "p", "namespace": "n"}, "spec": spec})
    }

    fn simple() -> Value {
        created(&Pod, pod(json!({"containers": [{"name": "a", "image": "b:1"}]})))
    }

    #[test]
    fn a_new_pod_is_pending_with_its_class() {
        let pod = simple();
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(errors_of_create(&Pod, &pod), Vec::<String>::new());
    }

    #[test]
    fn faults_are_told_in_upstreams_words() {
        for (spec, fault) in [
            (json!({}), "spec.containers: Required value"),
            (
                json!({"containers": [{"name": "A", "image": ""}]}),
                "spec.containers[0].image: Required value",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b",
                    "volumeMounts": [{"name": "v", "mountPath": "/m"}]}]}),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b"}], "restartPolicy": "Maybe"}),
                "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
                 \"Never\", \"OnFailure\"",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]}),
                "spec.containers[1].name: Duplicate value: \"a\"",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b",
                    "livenessProbe": {"periodSeconds": -1}}]}),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b",
                    "env": [{"name": "E", "valueFrom": {}}]}]}),
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: \
                 `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b"}],
                    "initContainers": [{"name": "a", "image": "b",
                        "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]}),
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers \
                 without restartPolicy=Always",
            ),
            (
                json!({"containers": [{"name": "a", "image": "b"}],
                    "tolerations": [{"operator": "Equal"}]}),
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists \
                 when `key` is empty, which means \"match all values and all keys\"",
            ),
        ] {
            let texts = errors_of_create(&Pod, &created(&Pod, pod(spec)));
            assert!(texts.iter().any(|text| text == fault), "{fault}\nfound {texts:#?}");
        }
    }

    #[test]
    fn only_the_image_and_a_few_may_change() {
        let old = simple();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "b:2".into();
        assert_eq!(errors_of_update(&Pod, "", &new, &old), Vec::<String>::new());
        new["spec"]["nodeName"] = "other".into();
        let texts = errors_of_update(&Pod, "", &new, &old);
        assert!(
            texts[0].starts_with(
                "spec: Forbidden: pod updates may not change fields other than \
                 `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                 tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                 was previously negative)\n@@"
            ),
            "{texts:?}"
        );
        assert!(texts[0].contains("+  \"nodeName\": \"other\""), "{texts:?}");
    }

    #[test]
    fn unbound_and_ended_pods_go_at_once() {
        let mut pod = simple();
        assert_eq!(Pod.grace_seconds(&pod, None), Some(0));
        pod["spec"]["nodeName"] = "n".into();
        assert_eq!(Pod.grace_seconds(&pod, None), Some(30));
        assert_eq!(Pod.grace_seconds(&pod, Some(-5)), Some(1));
        assert_eq!(Pod.grace_seconds(&pod, Some(0)), Some(0));
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(Pod.grace_seconds(&pod, None), Some(0));
    }

    #[test]
    fn label_keys_become_requirements() {
        let pod = created(
            &Pod,
            json!({
                "metadata": {"name": "p", "labels": {"hash": "1"}},
                "spec": {"containers": [], "topologySpreadConstraints": [
                    {"labelSelector": {}, "matchLabelKeys": ["hash", "missing"]}]},
            }),
        );
        assert_eq!(
            pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
            json!([{"key": "hash", "operator": "In", "values": ["1"]}])
        );
    }
}
