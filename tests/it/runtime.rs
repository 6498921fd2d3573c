//! The node on a real Docker engine, where one is reachable; the API is the in-memory one.

use std::sync::Arc;
use std::time::Duration;

use clusterd::client::fake::FakeServer;
use clusterd::client::{DeleteOptions, SharedClient, Target, WriteOptions};
use clusterd::object::{Gvr, Value, meta};
use clusterd::runtime::docker::DockerEngine;
use clusterd::runtime::engine::Engine;
use clusterd::runtime::fake::FakeNetwork;
use clusterd::runtime::{Node, NodeConfig, carried, labels};
use clusterd::stdx::clock::SystemClock;
use clusterd::stdx::tasks::Tasks;
use serde_json::json;

const DOCKER: &str = "unix:///var/run/docker.sock";
const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    client: SharedClient,
    engine: Arc<DockerEngine>,
    name: String,
    dir: tempfile::TempDir,
}

impl Rig {
    /// `None` where no engine answers.
    async fn new(name: &str) -> Option<Self> {
        if let Ok(filter) = std::env::var("RUST_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).try_init().ok();
        }
        let engine = Arc::new(DockerEngine::new(DOCKER).ok()?);
        if engine.info().await.is_err() {
            eprintln!("no Docker engine at {DOCKER}: nothing is tested");
            return None;
        }
        carried::provide_samples(engine.as_ref()).await.unwrap();
        let client = FakeServer::new(SystemClock::shared()).client();
        let name = format!("{name}-{}", std::process::id());
        Some(Self { client, engine, name, dir: tempfile::tempdir().unwrap() })
    }

    /// Starts a node over the same engine, API and folder.
    fn node(&self) -> Tasks {
        let tasks = Tasks::new();
        let config = NodeConfig {
            name: self.name.clone(),
            ip: "127.0.0.1".parse().unwrap(),
            data_dir: self.dir.path().to_owned(),
            cluster_dns: "10.43.0.10".parse().ok(),
            cluster_domain: "cluster.local".into(),
            pod_cidrs: Vec::new(),
            labels: Default::default(),
            taints: Vec::new(),
            port: 10250,
            version: "v1.36.2+clusterd".into(),
        };
        let network = Arc::new(FakeNetwork::default());
        let clock = SystemClock::shared();
        let node = Node::build(
            config,
            self.client.clone(),
            self.engine.clone(),
            network,
            clock,
            &tasks,
        );
        node.unwrap().start();
        tasks
    }

    fn pods() -> Gvr {
        Gvr::new("", "v1", "pods")
    }

    async fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!(self.name);
        spec["restartPolicy"] = json!("Never");
        spec["terminationGracePeriodSeconds"] = json!(5);
        let body = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let target = Target::all(&Self::pods(), "default");
        self.client.create(&target, body, &WriteOptions::default()).await.unwrap();
    }

    fn target(name: &str) -> Target {
        Target::object(&Self::pods(), "default", name)
    }

    /// Waits until the pod is as `wanted`.
    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let pod = self.client.get(&Self::target(name)).await.unwrap();
            if wanted(&pod) {
                return pod;
            }
            assert!(tokio::time::Instant::now() < deadline, "still {:#}", pod["status"]);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn delete(&self, name: &str) {
        self.client.delete(&Self::target(name), &DeleteOptions::default()).await.unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.client.get(&Self::target(name)).await.is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "{name} is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn none_left(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.engine.list(labels::NODE, &self.name).await.unwrap().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "containers are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn phase(pod: &Value) -> &str {
    meta::text(pod, &["status", "phase"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_outlives_its_node_process_and_leaves_nothing() {
    let Some(rig) = Rig::new("life").await else { return };
    let node = rig.node();
    let started = std::time::Instant::now();
    let container = json!({"name": "main", "image": "clusterd/sample:v1"});
    rig.create("web", json!({"containers": [container]})).await;
    let pod = rig.until("web", |pod| phase(pod) == "Running").await;
    eprintln!("running after {:?}", started.elapsed());
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["ready"], true);
    let id = status["containerID"].clone();
    node.shutdown().await;
    // A new process over the same engine adopts what runs.
    let node = rig.node();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pod = rig.until("web", |pod| phase(pod) == "Running").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["containerID"], id);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    rig.delete("web").await;
    rig.none_left().await;
    node.shutdown().await;
}
