//! The scheduler's loop: what informers tell goes into table and queue, decisions go out as
//! bindings, refusals as events and conditions.
//!
//! Why one loop and many bindings: deciding is serial (each decision sees the one before), binding
//! is a write that waits for the disk, so up to [`BINDINGS_MAX`] of them run beside it and group
//! themselves in the store.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cache::NodeTable;
use super::cycle::{Decision, schedule};
use super::framework::{ClusterEvent, Plugin};
use super::plugins;
use super::pod::PodInfo;
use super::queue::Queue;
use crate::client::{PatchKind, SharedClient, Target, WriteOptions};
use crate::object::status::Status;
use crate::object::{Gvr, time};
use crate::reconcile::change::reference_to;
use crate::reconcile::informer::{Informers, Notice};
use crate::reconcile::predicates::is_terminal;
use crate::reconcile::recorder::{EventType, Recorder};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::{RESTART, Tasks};

/// Upstream's name of this scheduler; pods that name another are left alone.
pub const NAME: &str = "default-scheduler";
/// The user the scheduler acts as.
pub const USER: &str = "system:kube-scheduler";
/// Bindings on their way at once; at the bound the next decision waits for one to end.
pub const BINDINGS_MAX: usize = 256;

/// What the scheduler needs.
#[derive(Clone)]
pub struct Context {
    /// As [`USER`].
    pub client: SharedClient,
    /// Shared copies of pods and nodes.
    pub informers: Informers,
    /// Time.
    pub clock: SharedClock,
}

struct State {
    table: NodeTable,
    queue: Queue,
}

struct Scheduler {
    context: Context,
    plugins: Vec<Box<dyn Plugin>>,
    state: Mutex<State>,
    wake: Notify,
    recorder: Recorder,
}

/// Runs the scheduler until `tasks` stop.
pub fn start(context: Context, tasks: &Tasks) {
    let recorder = Recorder::new(context.client.clone(), context.clock.clone(), tasks, NAME, "");
    tasks.spawn("scheduler", RESTART, move |stop| {
        let scheduler = Arc::new(Scheduler {
            context: context.clone(),
            plugins: plugins::all(),
            state: Mutex::new(State { table: NodeTable::default(), queue: Queue::default() }),
            wake: Notify::new(),
            recorder: recorder.clone(),
        });
        async move {
            scheduler.run(stop).await;
            Ok(())
        }
    });
}

fn wanted(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(NAME);
    scheduler == NAME && pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod)
}

impl Scheduler {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let nodes = self.context.informers.of::<Node>();
        let pods = self.context.informers.of::<Pod>();
        let (this, that) = (self.clone(), self.clone());
        let _nodes = nodes.subscribe(move |notice| this.node_changed(notice));
        let _pods = pods.subscribe(move |notice| that.pod_changed(notice));
        // Deciding before the first full picture would overfill nodes.
        crate::reconcile::informer::Followed::synced(&nodes).await;
        crate::reconcile::informer::Followed::synced(&pods).await;
        let mut bindings: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut tie_break = 0_u64;
        loop {
            while bindings.len() < BINDINGS_MAX {
                tie_break = tie_break.wrapping_add(1);
                let Some(work) = self.clone().step(tie_break) else { break };
                bindings.push(work);
            }
            let timer = self.time_to_wait(bindings.len() < BINDINGS_MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                Some(()) = bindings.next(), if !bindings.is_empty() => {}
                () = tokio::time::sleep(timer) => {}
            }
        }
    }

    fn time_to_wait(&self, may_decide: bool) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let now = self.context.clock.monotonic();
        let wake = self.state.lock().queue.next_wake().filter(|_| may_decide);
        wake.map_or(LONG, |at| at.saturating_sub(now))
    }

    /// One decision; what it leads to is the future.
    fn step(self: Arc<Self>, tie_break: u64) -> Option<BoxFuture<'static, ()>> {
        let now = self.context.clock.monotonic();
        let mut state = self.state.lock();
        let pod = state.queue.pop(now)?;
        match schedule(&pod, &state.table, &self.plugins, tie_break) {
            Decision::Bind(node) => {
                state.table.add_pod(pod.clone(), &node);
                drop(state);
                Some(Box::pin(async move { self.bind(pod, node).await }))
            }
            Decision::Unschedulable { message, refused_by } => {
                let mut wakes: Vec<ClusterEvent> = vec![];
                let refusing = self.plugins.iter().filter(|p| refused_by.contains(&p.name()));
                refusing.for_each(|plugin| wakes.extend(plugin.wakes_on()));
                if refused_by.is_empty() {
                    wakes.push(ClusterEvent::Node);
                }
                state.queue.refused(&pod.uid, wakes, now);
                drop(state);
                Some(Box::pin(async move { self.refuse(pod, message).await }))
            }
        }
    }

    async fn bind(&self, pod: PodInfo, node: String) {
        let (namespace, name) = &pod.key;
        let target = Target::object(&Gvr::new("", "v1", "pods"), namespace, name).sub("binding");
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        });
        let done = self.context.client.create(&target, body, &WriteOptions::default()).await;
        match done {
            Ok(_) => {
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                let about = reference_to(&*pod.pod);
                self.recorder.event(&about, EventType::Normal, "Scheduled", message);
            }
            Err(status) => self.bind_failed(&pod, &node, &status),
        }
    }

    fn bind_failed(&self, pod: &PodInfo, node: &str, status: &Status) {
        tracing::warn!(pod = ?pod.key, node, "binding failed: {status}");
        let now = self.context.clock.monotonic();
        let mut state = self.state.lock();
        // The informer may have shown it bound by someone else meanwhile: then that counts.
        let assumed = state.table.counted(&pod.uid).is_some_and(|held| Arc::ptr_eq(held, &pod.pod));
        if assumed {
            state.table.remove_pod(&pod.uid);
        }
        if status.is_not_found() {
            state.queue.remove(&pod.uid);
        } else {
            state.queue.failed(&pod.uid, now);
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn refuse(&self, pod: PodInfo, message: String) {
        let about: ObjectReference = reference_to(&*pod.pod);
        self.recorder.event(&about, EventType::Warning, "FailedScheduling", message.clone());
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let known = conditions.into_iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message.as_str())
        });
        if known {
            return;
        }
        let (namespace, name) = &pod.key;
        let target = Target::object(&Gvr::new("", "v1", "pods"), namespace, name).sub("status");
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": time::seconds(self.context.clock.now()),
        });
        let body = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        let options = WriteOptions::default();
        let patched =
            self.context.client.patch(&target, PatchKind::Strategic, body, &options).await;
        if let Err(status) = patched
            && !status.is_not_found()
        {
            tracing::warn!(pod = ?pod.key, "the refusal can't be written: {status}");
        }
    }

    fn node_changed(&self, notice: Notice<'_, Node>) {
        let now = self.context.clock.monotonic();
        let mut state = self.state.lock();
        match (notice.old, notice.new) {
            (_, Some(node)) => {
                state.table.set_node(node.clone());
                // Heartbeats change nothing that a plug-in looks at.
                if notice.old.is_none_or(|old| matters(old, node)) {
                    state.queue.happened(ClusterEvent::Node, now);
                }
            }
            (Some(old), None) => {
                state.table.remove_node(old.metadata.name.as_deref().unwrap_or(""));
            }
            (None, None) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    fn pod_changed(&self, notice: Notice<'_, Pod>) {
        let now = self.context.clock.monotonic();
        let mut state = self.state.lock();
        let Some(newest) = notice.newest() else { return };
        let info = PodInfo::new(newest.clone());
        let gone = notice.new.is_none() || is_terminal(newest);
        if gone {
            state.queue.remove(&info.uid);
            if state.table.remove_pod(&info.uid) {
                state.queue.happened(ClusterEvent::PodGone, now);
            }
        } else if !info.node().is_empty() {
            let node = info.node().to_owned();
            state.queue.remove(&info.uid);
            let came = state.table.place_of(&info.uid).is_none();
            state.table.add_pod(info, &node);
            if came {
                state.queue.happened(ClusterEvent::PodAdded, now);
            }
        } else if wanted(newest) {
            let gated = self.plugins.iter().any(|plugin| plugin.pre_enqueue(&info).is_some());
            // Its own condition coming back is no reason to try it again.
            if notice.old.is_none_or(|old| old.spec != newest.spec || labels_differ(old, newest)) {
                state.queue.put(info, gated);
            }
        } else {
            state.queue.remove(&info.uid);
        }
        drop(state);
        self.wake.notify_one();
    }
}

fn labels_differ(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
}

fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|all| all.allocatable.clone());
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || allocatable(old) != allocatable(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;
    use crate::stdx::clock::SystemClock;
    use serde_json::Value;

    fn node(name: &str, cpu: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"}}})
    }

    fn pod(name: &str, cpu: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"requests": {"cpu": cpu}}}]}})
    }

    async fn until(client: &SharedClient, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let target = Target::object(&Gvr::new("", "v1", "pods"), "default", name);
        for _ in 0..2000 {
            let pod = client.get(&target).await.unwrap();
            if holds(&pod) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("pod {name} never came to what was waited for");
    }

    #[tokio::test]
    async fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_room_appears() {
        let client = FakeServer::new(SystemClock::shared()).client();
        let tasks = Tasks::new();
        let context = Context {
            client: client.clone(),
            informers: Informers::new(client.clone(), &tasks),
            clock: SystemClock::shared(),
        };
        start(context, &tasks);
        let options = WriteOptions::default();
        let pods = Target::all(&Gvr::new("", "v1", "pods"), "default");
        let nodes = Target::all(&Gvr::new("", "v1", "nodes"), "");
        client.create(&nodes, node("small", "500m"), &options).await.unwrap();
        client.create(&pods, pod("a", "1"), &options).await.unwrap();
        let refused = until(&client, "a", |pod| pod["status"]["conditions"].is_array()).await;
        assert_eq!(
            refused["status"]["conditions"][0]["message"],
            "0/1 nodes are available: 1 Insufficient cpu."
        );
        client.create(&nodes, node("big", "4"), &options).await.unwrap();
        let bound = until(&client, "a", |pod| pod["spec"]["nodeName"].is_string()).await;
        assert_eq!(bound["spec"]["nodeName"], "big");
        tasks.shutdown().await;
    }
}
