//! Refuses nodes that are cordoned, unless the pod tolerates the taint that stands for it.
//!
//! Why by a toleration: daemon pods run on cordoned nodes.

use k8s_openapi::api::core::v1::Taint;

use crate::reconcile::predicates::tolerates;
use crate::scheduler::cache::NodeRow;
use crate::scheduler::framework::{Plugin, Refusal};
use crate::scheduler::pod::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        let spec = node.node().and_then(|node| node.spec.as_ref());
        if !spec.and_then(|spec| spec.unschedulable).unwrap_or(false) {
            return Ok(());
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint)) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) were unschedulable"))
    }
}
