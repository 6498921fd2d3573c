//! Removes pods that nobody will: of nodes that are gone, ending before they had a node, and the
//! oldest finished ones beyond a threshold.
//!
//! Why a loop over everything: each rule is about absence, which no single event tells
//! (upstream's `gc_controller.go`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;

use super::pods::{is_terminal, node_name};
use crate::client::{DeleteOptions, PatchKind};
use crate::object::status::Result;
use crate::object::time;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};
use crate::stdx::clock::SharedClock;

/// Finished pods that are kept (upstream's `--terminated-pod-gc-threshold`).
const TERMINATED_PODS_MAX: usize = 12_500;
/// How often it looks.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must have been missing before its pods are taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);

/// A pod to remove, with the message of its DisruptionTarget condition if it gets one.
#[derive(Debug, PartialEq)]
struct Removal {
    pod: Arc<Pod>,
    disruption: Option<&'static str>,
}

/// `lost` are the nodes missing for long enough.
fn plan(pods: &[Arc<Pod>], lost: &BTreeSet<String>, threshold: usize) -> Vec<Removal> {
    let mut removals = Vec::new();
    let mut finished: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods {
        let node = node_name(pod);
        if lost.contains(node) {
            let disruption = (!is_terminal(pod)).then_some("PodGC: node no longer exists");
            removals.push(Removal { pod: pod.clone(), disruption });
        } else if node.is_empty() && pod.is_deleting() {
            removals.push(Removal { pod: pod.clone(), disruption: None });
        } else if is_terminal(pod) && !pod.is_deleting() {
            finished.push(pod);
        }
    }
    finished.sort_by_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|at| at.0), pod.name().to_owned())
    });
    let surplus = finished.len().saturating_sub(threshold);
    removals.extend(
        finished[..surplus].iter().map(|pod| Removal { pod: (*pod).clone(), disruption: None }),
    );
    removals
}

/// The controller.
pub struct PodGarbage {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    clock: SharedClock,
    /// Since when a node that pods name is missing. Lost with the process, which delays only.
    missing: Mutex<HashMap<String, Duration>>,
}

impl PodGarbage {
    /// Over shared informers.
    pub fn new(informers: &Informers, clock: SharedClock) -> Self {
        let (pods, nodes) = (informers.of(), informers.of());
        Self { pods, nodes, clock, missing: Mutex::default() }
    }

    /// The nodes that have been missing for the quarantine; asked of the API before they count.
    async fn lost(&self, pass: &Pass, pods: &[Arc<Pod>]) -> BTreeSet<String> {
        let now = self.clock.monotonic();
        let named: BTreeSet<&str> = pods.iter().map(|pod| node_name(pod)).collect();
        let absent: BTreeSet<&str> = named
            .into_iter()
            .filter(|name| !name.is_empty() && self.nodes.get("", name).is_none())
            .collect();
        let due: Vec<String> = {
            let mut missing = self.missing.lock();
            missing.retain(|name, _| absent.contains(name.as_str()));
            for name in absent {
                missing.entry(name.to_owned()).or_insert(now);
            }
            let due = missing.iter().filter(|(_, since)| now.saturating_sub(**since) >= QUARANTINE);
            due.map(|(name, _)| name.clone()).collect()
        };
        let mut lost = BTreeSet::new();
        for name in due {
            let target = crate::client::Target::object(&Node::gvr(), "", &name);
            if pass.client().get(&target).await.is_err_and(|status| status.is_not_found()) {
                lost.insert(name);
            }
        }
        lost
    }

    async fn remove(&self, pass: &Pass, removal: &Removal, now: Timestamp) -> Result<()> {
        let pod = &removal.pod;
        if !is_terminal(pod) {
            let mut conditions =
                pod.status.clone().and_then(|status| status.conditions).unwrap_or_default();
            if let Some(message) = removal.disruption {
                conditions.retain(|condition| condition.type_ != "DisruptionTarget");
                let new = json!({"type": "DisruptionTarget", "status": "True",
                    "reason": "DeletionByPodGC", "message": message,
                    "lastTransitionTime": time::seconds(now)});
                conditions.extend(
                    serde_json::from_value::<k8s_openapi::api::core::v1::PodCondition>(new),
                );
            }
            let body = json!({"metadata": {"uid": pod.uid()},
                "status": {"phase": "Failed", "conditions": conditions}});
            let target = pod.target().sub("status");
            let change = Change::Patch { target, kind: PatchKind::Merge, body };
            match pass.apply(change).await {
                Err(status) if status.is_not_found() => return Ok(()),
                other => other?,
            };
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(pod.uid().to_owned()),
            ..DeleteOptions::default()
        };
        pass.apply(Change::Delete { target: pod.target(), options }).await?;
        Ok(())
    }
}

#[async_trait]
impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn workers(&self) -> usize {
        1
    }

    fn period(&self) -> Duration {
        PERIOD
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.pods.clone()), Arc::new(self.nodes.clone())]
    }

    /// One key stands for everything.
    fn keys(&self) -> Vec<ObjectKey> {
        vec![ObjectKey::default()]
    }

    fn watch(&self, _queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        Vec::new()
    }

    async fn reconcile(&self, _key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let pods = self.pods.list("");
        let lost = self.lost(pass, &pods).await;
        let mut failure = Ok(());
        for removal in plan(&pods, &lost, TERMINATED_PODS_MAX) {
            failure = failure.and(self.remove(pass, &removal, self.clock.now()).await);
        }
        failure.map(|()| Action::Await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool) -> Arc<Pod> {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        let pod = json!({"metadata": {"name": name, "deletionTimestamp": deleted,
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", name.len())},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_what_nobody_else_removes_goes() {
        let pods = [
            pod("lost", "gone", "Running", false),
            pod("never-placed", "", "Pending", true),
            pod("waiting", "", "Pending", false),
            pod("ending", "n", "Running", true),
            pod("a", "n", "Succeeded", false),
            pod("ab", "n", "Failed", false),
        ];
        let lost = BTreeSet::from(["gone".to_owned()]);
        let removals = plan(&pods, &lost, 1);
        let names: Vec<&str> = removals.iter().map(|it| it.pod.name()).collect();
        assert_eq!(names, ["lost", "never-placed", "a"]);
        assert_eq!(removals[0].disruption, Some("PodGC: node no longer exists"));
        assert_eq!(removals[1].disruption, None);
    }
}
