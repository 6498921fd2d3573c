//! Pods against the standards, after upstream's fixtures.

use std::sync::Arc;

use serde_json::json;

use super::super::tests::{request, update};
use super::*;
use crate::api::objects::MemoryObjects;

fn plugin(labels: Value) -> PodSecurity {
    let namespace = json!({"metadata": {"name": "ns", "labels": labels}});
    PodSecurity::new(Arc::new(MemoryObjects::with([("namespaces", "", namespace)])))
}

fn labelled(level: &str) -> PodSecurity {
    plugin(json!({"pod-security.kubernetes.io/enforce": level}))
}

/// A pod that the restricted standard accepts.
fn restricted_pod() -> Value {
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i", "securityContext": context}]}})
}

async fn refusal(plugin: &PodSecurity, pod: Value) -> Option<String> {
    let request = request("pods", "", "ns", pod);
    plugin.validate(&request).await.err().map(|status| status.message)
}

#[tokio::test]
async fn each_level_refuses_what_it_names() {
    for (path, value, baseline, text) in [
        (vec!["spec", "hostNetwork"], json!(true), true, "host namespaces (hostNetwork=true)"),
        (vec!["spec", "volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]), true, ""),
        (
            vec!["spec", "volumes"],
            json!([{"name": "v", "nfs": {"path": "/"}}]),
            false,
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
        ),
        (
            vec!["spec", "securityContext", "runAsUser"],
            json!(0),
            false,
            "runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            vec!["spec", "securityContext", "seccompProfile", "type"],
            json!("Unconfined"),
            true,
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \
             \"Unconfined\")",
        ),
        (
            vec!["spec", "securityContext", "sysctls"],
            json!([{"name": "kernel.msgmax", "value": "1"}]),
            true,
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            vec!["spec", "securityContext", "seLinuxOptions"],
            json!({"type": "spc_t", "user": "u"}),
            true,
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; \
             user may not be set)",
        ),
        (
            vec!["spec", "initContainers"],
            json!([{"name": "i", "securityContext": {"privileged": true,
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]),
            true,
            "privileged (container \"i\" must not set securityContext.privileged=true)",
        ),
        (
            vec!["spec", "initContainers"],
            json!([{"name": "i", "ports": [{"hostPort": 80}], "securityContext":
                {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]),
            true,
            "hostPort (container \"i\" uses hostPort 80)",
        ),
        (
            vec!["spec", "securityContext", "runAsNonRoot"],
            json!(null),
            false,
            "runAsNonRoot != true (pod or container \"c\" must set \
             securityContext.runAsNonRoot=true)",
        ),
    ] {
        let mut pod = restricted_pod();
        meta::set(&mut pod, &path, value);
        assert_eq!(refusal(&labelled("privileged"), pod.clone()).await, None);
        assert_eq!(refusal(&labelled("baseline"), pod.clone()).await.is_some(), baseline, "{pod}");
        let refused = refusal(&labelled("restricted"), pod).await.unwrap();
        let head = "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": ";
        assert!(refused.starts_with(head), "{refused}");
        assert!(refused.ends_with(text), "{refused}");
    }
    assert_eq!(refusal(&labelled("restricted"), restricted_pod()).await, None);
}

#[tokio::test]
async fn a_plain_pod_is_told_all_that_the_restricted_level_misses() {
    let plain = json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(refusal(&labelled("baseline"), plain.clone()).await, None);
    assert_eq!(
        refusal(&labelled("restricted"), plain).await.unwrap(),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": \
         allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \
         \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true \
         (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[tokio::test]
async fn a_version_keeps_its_own_rules() {
    let mut pod = restricted_pod();
    pod["spec"]["hostUsers"] = json!(false);
    pod["spec"]["securityContext"]["runAsUser"] = json!(0);
    let at = |version: &str| {
        plugin(json!({"pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": version}))
    };
    assert_eq!(refusal(&at("latest"), pod.clone()).await, None);
    let old = refusal(&at("v1.34"), pod).await.unwrap();
    assert!(old.contains("violates PodSecurity \"restricted:v1.34\": runAsUser=0"), "{old}");
}

#[tokio::test]
async fn workloads_are_warned_about_and_pods_that_stay_as_they_are_pass() {
    let plugin = labelled("restricted");
    let template = json!({"spec": {"containers": [{"name": "c"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"template": template}});
    let mut deployment = request("deployments", "apps", "ns", object);
    plugin.admit(&mut deployment).await.unwrap();
    plugin.validate(&deployment).await.unwrap();
    assert!(deployment.warnings[0].starts_with(
        "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"
    ));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    let mut doomed = request("pods", "", "ns", pod.clone());
    plugin.admit(&mut doomed).await.unwrap();
    assert!(doomed.warnings.is_empty(), "a refusal says it all");
    let mut new = pod.clone();
    meta::set(&mut new, &["metadata", "labels", "a"], "b");
    assert!(plugin.validate(&update("pods", "", "ns", new, pod.clone())).await.is_ok());
    let mut image = pod.clone();
    image["spec"]["containers"][0]["image"] = json!("other");
    assert!(plugin.validate(&update("pods", "", "ns", image, pod)).await.is_err());
}

#[tokio::test]
async fn labels_must_be_readable_and_a_stricter_one_tells_of_pods_that_run() {
    let privileged = json!({"metadata": {"namespace": "ns", "name": "bad"},
        "spec": {"hostPID": true, "containers": []}});
    let objects = MemoryObjects::with([("pods", "", privileged)]);
    let plugin = PodSecurity::new(Arc::new(objects));
    let namespace = |level: &str| {
        json!({"metadata": {"name": "ns",
            "labels": {"pod-security.kubernetes.io/enforce": level}}})
    };
    let wrong = request("namespaces", "", "ns", namespace("strict"));
    assert_eq!(
        plugin.validate(&wrong).await.unwrap_err().message,
        "Namespace \"ns\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: \
         Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    let mut stricter =
        update("namespaces", "", "ns", namespace("baseline"), namespace("privileged"));
    plugin.admit(&mut stricter).await.unwrap();
    assert_eq!(
        stricter.warnings,
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \
             \"baseline:latest\"",
            "bad: host namespaces",
        ]
    );
}
