//! Refuses nodes on which a host port of the pod is taken.
//!
//! Why by address too: the same port on two addresses of a node is no conflict.

use crate::scheduler::cache::NodeRow;
use crate::scheduler::framework::{ClusterEvent, Plugin, Refusal};
use crate::scheduler::pod::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        let taken = |port| node.host_ports().any(|used| used.conflicts(port));
        if pod.host_ports.iter().any(taken) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            return Err(Refusal::resolvable(reason));
        }
        Ok(())
    }

    fn wakes_on(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::Node, ClusterEvent::PodGone]
    }
}
