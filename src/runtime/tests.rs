//! The node on the engine in memory: whole stories of pods, with time that waits for no one.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::engine::Engine;
use super::fake::{FakeEngine, FakeNetwork};
use super::{Node, NodeConfig, labels};
use crate::client::fake::FakeServer;
use crate::client::{DeleteOptions, PatchKind, SharedClient, Target, WriteOptions};
use crate::object::{Gvr, meta};
use crate::reconcile::Object;
use crate::stdx::clock::SystemClock;
use crate::stdx::tasks::Tasks;

struct Rig {
    server: FakeServer,
    client: SharedClient,
    engine: Arc<FakeEngine>,
    network: Arc<FakeNetwork>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let clock = SystemClock::shared();
        let server = FakeServer::new(clock.clone());
        let client = server.client();
        let engine = Arc::new(FakeEngine::new(clock, &["app:1"]));
        let network = Arc::default();
        Self { server, client, engine, network, dir: tempfile::tempdir().unwrap() }
    }

    fn node(&self) -> Tasks {
        let tasks = Tasks::new();
        let config = NodeConfig {
            name: "n1".into(),
            ip: "192.0.2.1".parse().unwrap(),
            data_dir: self.dir.path().to_owned(),
            cluster_dns: None,
            cluster_domain: "cluster.local".into(),
            pod_cidrs: Vec::new(),
            labels: Default::default(),
            taints: Vec::new(),
            port: 10250,
            version: "v1.36.2".into(),
        };
        let (client, engine) = (self.client.clone(), self.engine.clone());
        let clock = SystemClock::shared();
        let node = Node::build(config, client, engine, self.network.clone(), clock, &tasks);
        node.unwrap().start();
        tasks
    }

    async fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let target = Target::all(&core::Pod::gvr(), "default");
        self.client.create(&target, pod, &WriteOptions::default()).await.unwrap();
    }

    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let target = Target::object(&core::Pod::gvr(), "default", name);
        let look = async {
            loop {
                let pod = self.client.get(&target).await.unwrap();
                if wanted(&pod) {
                    return pod;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), look).await {
            Ok(pod) => pod,
            Err(_) => panic!("{:#}", self.client.get(&target).await.unwrap()["status"]),
        }
    }

    async fn until_host(&self, wanted: impl Fn(&Self) -> bool) {
        let look = async {
            while !wanted(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.unwrap();
    }

    fn events(&self) -> Vec<String> {
        let text = |event: &Value| {
            format!("{}: {}", meta::text(event, &["reason"]), meta::text(event, &["message"]))
        };
        self.server.all(&Gvr::new("", "v1", "events")).iter().map(text).collect()
    }

    async fn delete(&self, name: &str, grace: Option<i64>) {
        let target = Target::object(&core::Pod::gvr(), "default", name);
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        self.client.delete(&target, &options).await.unwrap();
    }
}

fn phase(pod: &Value) -> &str {
    meta::text(pod, &["status", "phase"])
}

fn first(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn one(name: &str) -> Value {
    json!({"containers": [{"name": name, "image": "app:1"}]})
}

#[tokio::test]
async fn a_pod_runs_is_adopted_by_the_next_process_and_leaves_nothing() {
    let rig = Rig::new();
    let node = rig.node();
    rig.create("web", one("main")).await;
    let pod = rig.until("web", |pod| phase(pod) == "Running").await;
    let id = first(&pod)["containerID"].clone();
    node.shutdown().await;
    let made = rig.engine.containers().len();
    let node = rig.node();
    rig.create("later", one("main")).await;
    rig.until("later", |pod| phase(pod) == "Running").await;
    let pod = rig.until("web", |pod| phase(pod) == "Running").await;
    assert_eq!((&first(&pod)["containerID"], &first(&pod)["restartCount"]), (&id, &json!(0)));
    assert_eq!(rig.engine.containers().len(), made + 2);
    for name in ["web", "later"] {
        rig.delete(name, None).await;
    }
    rig.until_host(|rig| rig.engine.containers().is_empty() && rig.network.attached().is_empty())
        .await;
    rig.until_host(|rig| std::fs::read_dir(rig.dir.path().join("pods")).unwrap().next().is_none())
        .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_container_that_ends_restarts_once_at_once_and_then_waits() {
    let rig = Rig::new();
    let node = rig.node();
    rig.create("web", one("main")).await;
    rig.until("web", |pod| phase(pod) == "Running").await;
    for code in [1, 2] {
        rig.until_host(|rig| rig.engine.running("k8s_main_").is_some()).await;
        let id = rig.engine.running("k8s_main_").unwrap();
        rig.engine.exit(&id, code);
        rig.until_host(|rig| rig.engine.running("k8s_main_").as_ref() != Some(&id)).await;
    }
    let reason = |pod: &Value| first(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = rig.until("web", reason).await;
    assert_eq!(first(&pod)["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!(first(&pod)["restartCount"], 1);
    let message = first(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=main pod=web_default("));
    node.shutdown().await;
}

#[tokio::test]
async fn a_missing_image_is_told_and_then_backed_off_and_the_pod_can_be_deleted() {
    let rig = Rig::new();
    let node = rig.node();
    let spec = json!({"containers": [
        {"name": "a", "image": "none:1"},
        {"name": "b", "image": "app:1", "imagePullPolicy": "Never"},
        {"name": "c", "image": "NOT VALID"}]});
    rig.create("web", spec).await;
    let waits = |pod: &Value, at: usize, reason: &str| {
        pod["status"]["containerStatuses"][at]["state"]["waiting"]["reason"] == reason
    };
    let pod = rig.until("web", |pod| waits(pod, 0, "ErrImagePull")).await;
    let pod = match waits(&pod, 2, "InvalidImageName") {
        true => pod,
        false => rig.until("web", |pod| waits(pod, 2, "InvalidImageName")).await,
    };
    assert_eq!(phase(&pod), "Pending");
    let pod = rig.until("web", |pod| waits(pod, 0, "ImagePullBackOff")).await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    let wanted = "Back-off pulling image \"none:1\": ErrImagePull: manifest for none:1 not found";
    assert_eq!(message, wanted);
    let events = rig.events();
    let told = |text: &str| events.iter().any(|event| event.starts_with(text));
    assert!(told("Pulling: Pulling image") && told("Failed: Error: ErrImagePull"), "{events:?}");
    rig.delete("web", None).await;
    rig.until_host(|rig| rig.server.all(&core::Pod::gvr()).is_empty()).await;
    node.shutdown().await;
}

#[tokio::test]
async fn config_maps_show_in_the_environment_and_in_volumes_that_follow_them() {
    let rig = Rig::new();
    let node = rig.node();
    let spec = json!({
        "containers": [{"name": "main", "image": "app:1",
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "m"}}]});
    rig.create("web", spec).await;
    rig.until_host(|rig| rig.events().iter().any(|event| event.contains("\"m\" not found"))).await;
    let maps = Gvr::new("", "v1", "configmaps");
    let map = json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"a": "1"}});
    let target = Target::all(&maps, "default");
    rig.client.create(&target, map, &WriteOptions::default()).await.unwrap();
    rig.until("web", |pod| phase(pod) == "Running").await;
    let containers = rig.engine.containers();
    let spec = &containers.iter().find(|(name, _)| name.starts_with("k8s_main_")).unwrap().1.0;
    assert!(spec.env.contains(&"A=1".to_owned()), "{:?}", spec.env);
    let mount = spec.mounts.iter().find(|mount| mount.target == "/v").unwrap();
    assert!(mount.read_only);
    let file = std::path::Path::new(&mount.source).join("a");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    let target = Target::object(&maps, "default", "m");
    let patch = json!({"data": {"a": "2"}});
    rig.client.patch(&target, PatchKind::Merge, patch, &WriteOptions::default()).await.unwrap();
    rig.until_host(|_| std::fs::read_to_string(&file).unwrap() == "2").await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_lost_engine_makes_the_node_unready_until_it_is_back() {
    let rig = Rig::new();
    rig.engine.set_unreachable(true);
    let node = rig.node();
    let ready = |rig: &Rig| {
        let nodes = rig.server.all(&core::Node::gvr());
        let list = nodes.first().and_then(|node| node["status"]["conditions"].as_array().cloned());
        let mut list = list.unwrap_or_default().into_iter();
        let found = list.find(|one| one["type"] == "Ready").unwrap_or_default();
        (found["status"].clone(), found["message"].clone())
    };
    rig.until_host(|rig| ready(rig).0 == "False").await;
    rig.create("web", one("main")).await;
    rig.engine.set_unreachable(false);
    rig.until_host(|rig| ready(rig).0 == "True").await;
    rig.until("web", |pod| phase(pod) == "Running").await;
    node.shutdown().await;
}

#[tokio::test]
async fn what_the_node_cannot_honour_fails_the_pod_with_the_fields_name() {
    let rig = Rig::new();
    let node = rig.node();
    let mut spec = one("main");
    spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    rig.create("web", spec).await;
    let pod = rig.until("web", |pod| phase(pod) == "Failed").await;
    let message = meta::text(&pod, &["status", "message"]);
    assert!(
        message.contains("spec.volumes[v].persistentVolumeClaim is not supported"),
        "{message}"
    );
    assert!(rig.engine.containers().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_and_a_sandbox_that_died_is_made_anew() {
    let rig = Rig::new();
    rig.engine.on_exec(|spec, _| match spec.labels[labels::ATTEMPT].as_str() {
        "0" => ("sick".to_owned(), 1),
        _ => (String::new(), 0),
    });
    let node = rig.node();
    let mut spec = one("main");
    spec["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["check"]}, "failureThreshold": 1, "periodSeconds": 1});
    rig.create("web", spec).await;
    rig.until("web", |pod| first(pod)["restartCount"] == 1 && first(pod)["ready"] == true).await;
    let events = rig.events();
    assert!(events.contains(&"Unhealthy: Liveness probe failed: sick".to_owned()), "{events:?}");
    let killed = "Killing: Container main failed liveness probe, will be restarted";
    assert!(events.contains(&killed.to_owned()), "{events:?}");
    let sandbox = rig.engine.running("k8s_POD_").unwrap();
    rig.engine.remove(&sandbox).await.unwrap();
    rig.until("web", |pod| first(pod)["restartCount"] == 2).await;
    assert!(rig.engine.running("k8s_POD_").is_some_and(|id| id != sandbox));
    node.shutdown().await;
}
