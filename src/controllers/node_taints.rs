//! Keeps the `NoSchedule` taints that stand for a node's conditions and for `spec.unschedulable`.
//!
//! Why: a new node is admitted with `not-ready`, so that no pod comes before its first status; this
//! takes it away again (upstream's node lifecycle controller, `doNoScheduleTaintingPass`). Eviction
//! and the times of silent nodes belong to that controller too and are not built yet.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};

/// (condition, its status, the taint's key)
const CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const EFFECT: &str = "NoSchedule";

/// The controller.
pub struct NodeTaints {
    nodes: Informer<Node>,
}

impl NodeTaints {
    /// Over the nodes of `informers`.
    pub fn new(informers: &Informers) -> Self {
        Self { nodes: informers.of() }
    }
}

/// The keys of the taints that the node should have of ours.
fn wanted(node: &Node) -> Vec<&'static str> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    let conditions = conditions.unwrap_or_default();
    let holds = |kind: &str, status: &str| {
        conditions.iter().any(|one| one.type_ == kind && one.status == status)
    };
    let of_conditions = CONDITIONS.iter().filter(|(kind, status, _)| holds(kind, status));
    let mut keys: Vec<&str> = of_conditions.map(|(_, _, key)| *key).collect();
    // Before its first status a node is not ready.
    if !conditions.iter().any(|one| one.type_ == "Ready") {
        keys.push(CONDITIONS[0].2);
    }
    let spec = node.spec.as_ref();
    if spec.and_then(|spec| spec.unschedulable).unwrap_or(false) {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

/// All taints the node should have; `None` when it has them.
fn plan(node: &Node) -> Option<Vec<Taint>> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let wanted = wanted(node);
    let ours = |taint: &Taint| {
        let known = CONDITIONS.iter().any(|(_, _, key)| *key == taint.key);
        taint.effect == EFFECT && (known || taint.key == UNSCHEDULABLE)
    };
    let stays = |taint: &&Taint| !ours(taint) || wanted.contains(&taint.key.as_str());
    let mut taints: Vec<Taint> = present.iter().filter(stays).cloned().collect();
    for key in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == EFFECT) {
            let (key, effect) = (key.to_owned(), EFFECT.to_owned());
            taints.push(Taint { key, effect, ..Taint::default() });
        }
    }
    (taints.as_slice() != present).then_some(taints)
}

#[async_trait]
impl Controller for NodeTaints {
    fn name(&self) -> &'static str {
        "node-taints"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.nodes.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.nodes.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let queue = queue.clone();
        vec![self.nodes.subscribe(move |notice| {
            if let Some(node) = notice.new.filter(|node| plan(node).is_some()) {
                queue.add(node.key());
            }
        })]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let Some(node) = self.nodes.at(key) else { return Ok(Action::Await) };
        if let Some(taints) = plan(&node) {
            let body = json!({"spec": {"taints": taints}});
            pass.apply(Change::merge_exact(&*node, body)).await?;
        }
        Ok(Action::Await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn node(ready: &str, taints: Value, unschedulable: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": taints, "unschedulable": unschedulable},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn keys(node: &Node) -> Option<Vec<String>> {
        Some(plan(node)?.into_iter().map(|taint| taint.key).collect())
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let not_ready = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let foreign = json!({"key": "gpu", "effect": "NoSchedule"});
        let evicting = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
        let ready = node("True", json!([not_ready, foreign, evicting]), false);
        assert_eq!(keys(&ready).unwrap(), ["gpu", "node.kubernetes.io/not-ready"]);
        assert_eq!(keys(&node("True", json!([foreign]), false)), None);
        assert_eq!(
            keys(&node("Unknown", json!([]), true)).unwrap(),
            ["node.kubernetes.io/unreachable", UNSCHEDULABLE]
        );
    }
}
