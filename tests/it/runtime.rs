//! The node on a real Docker engine, where one is reachable; the API is the in-memory one.

use std::sync::Arc;
use std::time::Duration;

use clusterd::client::fake::FakeServer;
use clusterd::client::node::{SharedNodeStreams, full_body};
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
const PATIENCE: Duration = Duration::from_secs(20);

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
        carried::provide_sample(engine.as_ref(), carried::SAMPLE_IMAGES[0].0).await.unwrap();
        let client = FakeServer::new(SystemClock::shared()).client();
        let name = format!("{name}-{}", std::process::id());
        Some(Self { client, engine, name, dir: tempfile::tempdir().unwrap() })
    }

    /// Starts a node over the same engine, API and folder.
    fn node(&self) -> Tasks {
        self.node_and_streams().0
    }

    fn node_and_streams(&self) -> (Tasks, SharedNodeStreams) {
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
        let (client, engine) = (self.client.clone(), self.engine.clone());
        let node = Node::build(config, client, engine, network, clock, &tasks).unwrap();
        let streams = node.streams();
        node.start();
        (tasks, streams)
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

/// A request to the node's server, upgraded to a WebSocket in the same process.
async fn exec(node: &SharedNodeStreams, name: &str, path: String) -> Vec<(u8, Vec<u8>)> {
    use futures::StreamExt;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    let (client, server) = tokio::io::duplex(1 << 16);
    let (node, name) = (node.clone(), name.to_owned());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (node, name) = (node.clone(), name.clone());
        async move {
            let (parts, _) = request.into_parts();
            let request = http::Request::from_parts(parts, full_body(""));
            node.call(&name, request).await
        }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), service)
        .with_upgrades();
    let talk = async {
        let request = http::Request::get(format!("ws://node{path}"))
            .header("host", "node")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(())
            .unwrap();
        let (mut socket, answer) = tokio_tungstenite::client_async(request, client).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let mut messages = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            if let tokio_tungstenite::tungstenite::Message::Binary(bytes) = message {
                messages.push((bytes[0], bytes[1..].to_vec()));
            }
        }
        messages
    };
    let (messages, _) = tokio::join!(talk, serve);
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_container_and_its_end_is_told() {
    let Some(rig) = Rig::new("exec").await else { return };
    let (node, streams) = rig.node_and_streams();
    let container = json!({"name": "main", "image": "clusterd/sample:v2"});
    rig.create("web", json!({"containers": [container]})).await;
    rig.until("web", |pod| phase(pod) == "Running").await;
    // The port is taken: the second server says so and ends with 1.
    let path = "/exec/default/web/main?command=/sample&stdout=true&stderr=true".to_owned();
    let messages = exec(&streams, &rig.name, path).await;
    let of = |channel: u8| -> String {
        let all = messages.iter().filter(|(own, _)| *own == channel);
        all.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    assert!(of(2).starts_with("cannot listen on 0.0.0.0:8080"), "{messages:?}");
    assert!(of(3).contains(r#""reason":"NonZeroExitCode""#), "{}", of(3));
    let request =
        http::Request::get("/containerLogs/default/web/main?tailLines=1").body(full_body(""));
    let answer = streams.call(&rig.name, request.unwrap()).await.unwrap();
    let log = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(log, "listening on 0.0.0.0:8080\n");
    rig.delete("web").await;
    rig.none_left().await;
    node.shutdown().await;
}
