//! Refuses every node but the one that the pod names.
//!
//! Why a filter although such a pod is bound already: a nominated pod passes here too.

use crate::scheduler::cache::NodeRow;
use crate::scheduler::framework::{Plugin, Refusal};
use crate::scheduler::pod::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        if pod.node().is_empty() || pod.node() == node.name() {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match the requested node name"))
    }
}
