//! A node that pretends: it takes each pod, and lets it run, finish or fail as its image says.
//!
//! Why so simple: scenarios are about controllers. The image decides: `bad…` is never pulled,
//! `done…` succeeds and `fail…` fails after a second, all others run and become ready after one.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clusterd::client::fake::FakeServer;
use clusterd::client::{DeleteOptions, PatchKind, Target, WriteOptions};
use clusterd::object::status::Result;
use clusterd::object::{Value, time};
use clusterd::reconcile::change::Pass;
use clusterd::reconcile::informer::{Followed, Subscription};
use clusterd::reconcile::{
    Action, Change, Controller, Executor, Informer, Informers, Object, ObjectKey, Queue, Recorder,
    driver,
};
use clusterd::stdx::clock::SharedClock;
use clusterd::stdx::tasks::Tasks;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

const NODE: &str = "node-1";
/// How long each step of a pod takes.
const STEP: Duration = Duration::from_secs(1);

struct Node {
    pods: Informer<Pod>,
    clock: SharedClock,
    addresses: AtomicU32,
}

/// Starts the node.
pub fn start(server: &FakeServer, informers: &Informers, clock: &SharedClock, tasks: &Tasks) {
    let gvr = clusterd::object::Gvr::new("", "v1", "nodes");
    server.put(&gvr, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}));
    let client = server.client_as("system:node:node-1");
    let recorder = Recorder::new(client.clone(), clock.clone(), tasks, "kubelet", NODE);
    let addresses = AtomicU32::new(u32::from(Ipv4Addr::new(10, 42, 0, 1)));
    let node = Node { pods: informers.of(), clock: clock.clone(), addresses };
    let executor = Executor::new(client, informers.clone(), recorder);
    driver::start(tasks, Arc::new(node), executor);
}

impl Node {
    async fn bind(&self, pod: &Pod, pass: &Pass) -> Result<()> {
        let body = json!({"target": {"kind": "Node", "name": NODE}});
        let target = pod.target().sub("binding");
        pass.client().create(&target, body, &WriteOptions::default()).await.map(|_| ())
    }

    /// The next status of a pod that has been where it is for a step.
    fn next(&self, pod: &Pod) -> Option<Value> {
        let spec = pod.spec.as_ref()?;
        let image = spec.containers.first()?.image.clone().unwrap_or_default();
        let phase = pod.status.as_ref()?.phase.clone().unwrap_or_default();
        let now = time::seconds(self.clock.now());
        let ended = |phase: &str, code: i32| {
            let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
            let state = json!({"terminated": {"exitCode": code, "finishedAt": now}});
            let container = json!({"name": "c", "image": image, "imageID": "", "ready": false,
                "restartCount": 0, "state": state});
            json!({"phase": phase, "conditions": [ready], "containerStatuses": [container]})
        };
        match phase.as_str() {
            "Pending" if image.starts_with("bad") => None,
            "Pending" => {
                let next = self.addresses.fetch_add(1, Ordering::Relaxed) + 1;
                let ip = Ipv4Addr::from(next).to_string();
                let ready = !image.starts_with("done") && !image.starts_with("fail");
                let ready = json!({"type": "Ready", "status": if ready { "True" } else { "False" },
                    "lastTransitionTime": now});
                Some(json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [ready]}))
            }
            "Running" if image.starts_with("done") => Some(ended("Succeeded", 0)),
            "Running" if image.starts_with("fail") => Some(ended("Failed", 1)),
            _ => None,
        }
    }

    async fn set_status(&self, pod: &Pod, status: Value, pass: &Pass) -> Result<()> {
        let target = pod.target().sub("status");
        let body = json!({ "status": status });
        let change = Change::Patch { target, kind: PatchKind::Merge, body };
        match pass.apply(change).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn finish(&self, pod: &Pod, pass: &Pass) -> Result<()> {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let target = Target::object(&Pod::gvr(), pod.namespace(), pod.name());
        pass.apply(Change::Delete { target, options }).await.map(|_| ())
    }
}

#[async_trait]
impl Controller for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        Vec::new()
    }

    /// Every change is seen a step later, and the image's pull and the process take that long.
    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let queue = queue.clone();
        vec![self.pods.subscribe(move |notice| {
            if let Some(pod) = notice.new {
                let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
                queue.add_after(pod.key(), if placed { STEP } else { Duration::ZERO });
            }
        })]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let Some(pod) = self.pods.at(key) else { return Ok(Action::Await) };
        let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if pod.is_deleting() {
            // A finalizer may hold it longer; it is over all the same.
            if pod.metadata.deletion_grace_period_seconds != Some(0) {
                self.finish(&pod, pass).await?;
            }
        } else if !placed {
            self.bind(&pod, pass).await?;
        } else if let Some(status) = self.next(&pod) {
            self.set_status(&pod, status, pass).await?;
        }
        Ok(Action::Await)
    }
}
