//! Tables of what a node may do, after upstream's cases.

use serde_json::{Value, json};

use super::*;
use crate::api::authz::rbac::rule::rules_of;
use crate::api::authz::tests::{resource, user};
use crate::api::objects::{MemoryObjects, SharedObjects};
use crate::stdx::tasks::Tasks;

fn pod(name: &str, node: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
    pod["spec"]["nodeName"] = json!(node);
    pod
}

fn memory() -> MemoryObjects {
    let spec = json!({
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{
            "envFrom": [{"secretRef": {"name": "env-from"}}],
            "env": [{"valueFrom": {"configMapKeyRef": {"name": "env-map"}}}],
        }],
        "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "init"}}}]}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "volume"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "d", "ephemeral": {}},
        ],
        "resourceClaims": [{"resourceClaimName": "gpu"}],
    });
    let mut mirror = pod("mirror", "n1", json!({"serviceAccountName": "stolen"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    MemoryObjects::with([
        ("pods", "", pod("one", "n1", spec)),
        ("pods", "", pod("two", "n2", json!({"serviceAccountName": "other"}))),
        ("pods", "", mirror),
        (
            "persistentvolumeclaims",
            "",
            json!({"metadata": {"namespace": "ns", "name": "claim"},
                "spec": {"volumeName": "volume"}}),
        ),
        (
            "persistentvolumes",
            "",
            json!({"metadata": {"name": "volume"},
                "spec": {"claimRef": {"namespace": "ns", "name": "claim"},
                    "csi": {"nodePublishSecretRef": {"namespace": "csi", "name": "publish"},
                        "controllerExpandSecretRef": {"namespace": "csi", "name": "expand"}}}}),
        ),
        (
            "volumeattachments",
            "storage.k8s.io",
            json!({"metadata": {"name": "attached"}, "spec": {"nodeName": "n1"}}),
        ),
    ])
}

fn authorizer(objects: SharedObjects) -> NodeAuthorizer {
    let role = json!({"rules": [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]},
    ]});
    NodeAuthorizer::new(Arc::new(Graph::load(objects)), rules_of(&role))
}

const NO_RELATION: &str = "no relationship found between node 'n1' and this object";
const LEASES: &str = "coordination.k8s.io leases kube-node-lease";
const READ_NS: &str = "can only read namespaced object of this type";
const GET_ONE: &str = "can only get individual resources of this type";

/// (verb, "group resource[/subresource] namespace", name, refusal); `-` is empty.
const CASES: &[(&str, &str, &str, Option<&str>)] = &[
    ("get", "- secrets ns", "pull", None),
    ("get", "- secrets ns", "env-from", None),
    ("watch", "- secrets ns", "init", None),
    ("get", "- secrets ns", "volume", None),
    ("get", "- secrets csi", "publish", None),
    ("get", "- secrets csi", "expand", Some(NO_RELATION)),
    ("get", "- secrets ns", "strange", Some(NO_RELATION)),
    ("get", "- secrets other", "volume", Some(NO_RELATION)),
    ("list", "- secrets ns", "", Some("No Object name found")),
    ("list", "- secrets -", "", Some(READ_NS)),
    ("update", "- secrets ns", "volume", Some("can only read resources of this type")),
    ("get", "- configmaps ns", "env-map", None),
    ("get", "- configmaps ns", "projected", None),
    ("get", "- configmaps ns", "volume", Some(NO_RELATION)),
    ("get", "- persistentvolumeclaims ns", "claim", None),
    ("get", "- persistentvolumeclaims ns", "one-d", None),
    ("patch", "- persistentvolumeclaims/status ns", "claim", None),
    ("get", "- persistentvolumes -", "volume", None),
    ("get", "- persistentvolumes -", "other", Some(NO_RELATION)),
    ("list", "- persistentvolumes -", "", Some(GET_ONE)),
    ("get", "resource.k8s.io resourceclaims ns", "gpu", None),
    ("get", "storage.k8s.io volumeattachments -", "attached", None),
    ("get", "storage.k8s.io volumeattachments -", "other", Some(NO_RELATION)),
    ("create", "- serviceaccounts/token ns", "sa", None),
    ("create", "- serviceaccounts/token ns", "other", Some(NO_RELATION)),
    ("create", "- serviceaccounts/token ns", "stolen", Some(NO_RELATION)),
    ("get", "- serviceaccounts ns", "sa", None),
    (
        "update",
        "- serviceaccounts ns",
        "sa",
        Some("can only create tokens for individual service accounts"),
    ),
    ("update", LEASES, "n1", None),
    ("create", LEASES, "", None),
    (
        "update",
        LEASES,
        "n2",
        Some("can only access node lease with the same name as the requesting node"),
    ),
    (
        "get",
        "coordination.k8s.io leases kube-system",
        "n1",
        Some("can only access leases in the \"kube-node-lease\" system namespace"),
    ),
    ("delete", "storage.k8s.io csinodes -", "n1", None),
    ("get", "- nodes -", "n1", None),
    ("get", "- nodes -", "n2", Some("node 'n1' cannot read 'n2', only its own Node object")),
    ("list", "- nodes -", "", Some("node 'n1' cannot read all nodes, only its own Node object")),
    ("delete", "- nodes -", "n1", Some("")),
    ("patch", "- nodes/status -", "n1", None),
    ("get", "- pods ns", "one", None),
    ("get", "- pods ns", "two", Some(NO_RELATION)),
    ("list", "- pods -", "", Some("can only list/watch pods with spec.nodeName field selector")),
    ("create", "- pods/eviction ns", "one", None),
    ("create", "- pods/exec ns", "one", Some("")),
    ("list", "- services -", "", None),
    ("create", "- services ns", "", Some("")),
];

#[tokio::test]
async fn a_node_reaches_what_its_pods_need_and_nothing_else() {
    let authorizer = authorizer(Arc::new(memory()));
    let node = Arc::new(user("system:node:n1", &[NODES]));
    for (verb, place, name, refusal) in CASES {
        let words: Vec<&str> =
            place.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let (kind, sub) = words[1].split_once('/').unwrap_or((words[1], ""));
        let what = Attributes {
            user: node.clone(),
            ..resource(verb, words[0], kind, sub, words[2], name)
        };
        let expected = match refusal {
            None => Decision::Allow(String::new()),
            Some(reason) => Decision::NoOpinion((*reason).to_owned()),
        };
        assert_eq!(authorizer.authorize(&what).await, expected, "{what:?}");
    }
    let own_pods = Attributes {
        user: node,
        field_selector: "spec.nodeName=n1".to_owned(),
        ..resource("watch", "", "pods", "", "", "")
    };
    assert_eq!(authorizer.authorize(&own_pods).await, Decision::Allow(String::new()));
}

#[tokio::test]
async fn only_members_of_the_nodes_group_are_nodes() {
    let authorizer = authorizer(Arc::new(memory()));
    for (who, reason) in [
        (user("system:node:n1", &[]), ""),
        (user("n1", &[NODES]), ""),
        (user("system:node:", &[NODES]), "unknown node for user \"system:node:\""),
    ] {
        let what = Attributes {
            user: Arc::new(who),
            ..resource("get", "", "secrets", "", "ns", "volume")
        };
        let expected = Decision::NoOpinion(reason.to_owned());
        assert_eq!(authorizer.authorize(&what).await, expected);
    }
}

#[tokio::test]
async fn a_pod_that_comes_or_goes_moves_the_border() {
    let memory = Arc::new(memory());
    let tasks = Tasks::new();
    let graph = Graph::start(memory.clone(), &tasks);
    let reached = async |expected: bool| {
        while graph.needs("n3", Needs::ServiceAccount, "ns", "late") != expected {
            tokio::task::yield_now().await;
        }
    };
    memory.put("pods", "", pod("late", "n3", json!({"serviceAccountName": "late"})));
    reached(true).await;
    memory.remove("pods", "", "ns", "late");
    reached(false).await;
    tasks.shutdown().await;
}
