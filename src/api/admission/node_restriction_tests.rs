//! What a node may write, after upstream's cases.

use serde_json::json;

use super::super::certificates::tests::signing_request;
use super::super::tests::{request, update};
use super::*;
use crate::api::authz::node::NODES;
use crate::api::authz::tests::user;
use crate::api::objects::MemoryObjects;

struct Nobody;

#[async_trait]
impl Authorizer for Nobody {
    async fn authorize(&self, _what: &Attributes) -> Decision {
        Decision::NoOpinion(String::new())
    }
}

fn plugin() -> NodeRestriction {
    let pod = |name: &str, node: &str| {
        let token = json!({"serviceAccountToken": {"audience": "vault"}});
        json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("{name}-uid")},
            "spec": {"nodeName": node, "volumes": [{"projected": {"sources": [token]}}]}})
    };
    NodeRestriction::new(
        Arc::new(MemoryObjects::with([
            ("pods", "", pod("mine", "n1")),
            ("pods", "", pod("other", "n2")),
            ("nodes", "", json!({"metadata": {"name": "n1", "uid": "n1-uid"}})),
        ])),
        Arc::new(Nobody),
    )
}

async fn refusal(mut request: Request) -> Option<String> {
    request.attributes.user = Arc::new(user("system:node:n1", &[NODES]));
    plugin().admit(&mut request).await.err().map(|status| status.message)
}

fn assert_refused(refusal: Option<String>, text: &str) {
    let refusal = refusal.unwrap_or_default();
    assert!(refusal.ends_with(text), "{refusal:?} does not end with {text:?}");
}

#[tokio::test]
async fn a_node_writes_only_itself_and_no_labels_of_others() {
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let plain = || node("n1", json!({}));
    let own = json!({"kubernetes.io/hostname": "x", "example.com/a": "b",
        "kubelet.kubernetes.io/x": "y"});
    assert_eq!(refusal(request("nodes", "", "", node("n1", own.clone()))).await, None);
    assert_eq!(refusal(update("nodes", "", "", node("n1", own), plain())).await, None);
    assert_refused(
        refusal(request("nodes", "", "", node("n2", json!({})))).await,
        "node \"n1\" is not allowed to modify node \"n2\"",
    );
    let escalating = json!({"node-restriction.kubernetes.io/a": "b",
        "node-role.kubernetes.io/control-plane": ""});
    assert_refused(
        refusal(request("nodes", "", "", node("n1", escalating.clone()))).await,
        "node \"n1\" is not allowed to set the following labels: \
         node-restriction.kubernetes.io/a, node-role.kubernetes.io/control-plane",
    );
    assert_refused(
        refusal(update("nodes", "", "", plain(), node("n1", escalating))).await,
        "is not allowed to modify labels: node-restriction.kubernetes.io/a, \
         node-role.kubernetes.io/control-plane",
    );
    let mut untainted = plain();
    untainted["spec"] = json!({"taints": [{"key": "a"}]});
    assert_refused(
        refusal(update("nodes", "", "", plain(), untainted)).await,
        "node \"n1\" is not allowed to modify taints",
    );
}

#[tokio::test]
async fn a_node_creates_mirror_pods_and_ends_only_its_own() {
    let mirror = || {
        json!({"metadata": {"namespace": "ns", "name": "m", "annotations": {MIRROR: "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1",
                "uid": "n1-uid", "controller": true}]}, "spec": {"nodeName": "n1"}})
    };
    assert_eq!(refusal(request("pods", "", "ns", mirror())).await, None);
    for (path, value, text) in [
        (
            vec!["metadata", "annotations"],
            json!({}),
            "annotation, node \"n1\" can only create mirror pods",
        ),
        (vec!["spec", "nodeName"], json!("n2"), "pods with spec.nodeName set to itself"),
        (vec!["metadata", "ownerReferences"], json!([]), "an owner reference set to itself"),
        (
            vec!["spec", "volumes"],
            json!([{"secret": {"secretName": "s"}}]),
            "node \"n1\" can not create pods that reference secrets",
        ),
    ] {
        let mut pod = mirror();
        meta::set(&mut pod, &path, value);
        assert_refused(refusal(request("pods", "", "ns", pod)).await, text);
    }
    for (name, allowed) in [("mine", true), ("other", false)] {
        let mut delete = request("pods", "", "ns", json!({"metadata": {"name": name}}));
        delete.operation = Operation::Delete;
        delete.object = None;
        assert_eq!(refusal(delete).await.is_none(), allowed, "{name}");
        let body = json!({"metadata": {"name": name}});
        let mut eviction = request("pods", "", "ns", body);
        eviction.attributes.subresource = "eviction".to_owned();
        eviction.attributes.name = name.to_owned();
        assert_eq!(refusal(eviction).await.is_none(), allowed, "{name}");
        let pod = plugin().objects.get("pods", "", "ns", name).unwrap();
        let mut status = update("pods", "", "ns", (*pod).clone(), (*pod).clone());
        status.attributes.subresource = "status".to_owned();
        assert_eq!(refusal(status).await.is_none(), allowed, "{name}");
    }
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_and_their_audiences() {
    let body = |name: &str, uid: &str, audiences: Value| {
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
        json!({"metadata": {"name": "sa"},
            "spec": {"audiences": audiences, "boundObjectRef": bound}})
    };
    for (body, refused) in [
        (body("mine", "mine-uid", json!(["vault"])), None),
        (json!({"spec": {}}), Some("node requested token not bound to a pod")),
        (
            body("mine", "", json!(["vault"])),
            Some("node requested token with a pod binding without a uid"),
        ),
        (
            body("mine", "old", json!(["vault"])),
            Some("The object might have been deleted and then recreated"),
        ),
        (
            body("other", "other-uid", json!(["vault"])),
            Some("node requested token bound to a pod scheduled on a different node"),
        ),
        (
            body("mine", "mine-uid", json!(["bank"])),
            Some(
                "audience \"bank\" not found in pod spec volume, system:node:n1 is not authorized \
                 to request tokens for this audience",
            ),
        ),
    ] {
        let mut token = request("serviceaccounts", "", "ns", body);
        token.attributes.subresource = "token".to_owned();
        match refused {
            None => assert_eq!(refusal(token).await, None),
            Some(text) => assert_refused(refusal(token).await, text),
        }
    }
}

#[tokio::test]
async fn leases_and_certificates_are_a_nodes_own() {
    let lease = |name: &str| json!({"metadata": {"name": name}});
    let group = "coordination.k8s.io";
    assert_eq!(refusal(request("leases", group, LEASE_NAMESPACE, lease("n1"))).await, None);
    assert!(refusal(request("leases", group, LEASE_NAMESPACE, lease("n2"))).await.is_some());
    assert!(refusal(request("leases", group, "default", lease("n1"))).await.is_some());
    let signer = "kubernetes.io/kubelet-serving";
    for (name, allowed) in [("system:node:n1", true), ("system:node:n2", false)] {
        let csr = signing_request(signer, name, "system:nodes");
        let request = request("certificatesigningrequests", "certificates.k8s.io", "", csr);
        assert_eq!(refusal(request).await.is_none(), allowed, "{name}");
    }
}
