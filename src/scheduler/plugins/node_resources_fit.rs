//! Refuses nodes without room for the pod's requests; prefers those with the most room left.
//!
//! Why all shortages are listed and not the first: `describe` must show everything that is missing.

use crate::scheduler::cache::{NodeRow, NodeTable};
use crate::scheduler::framework::{ClusterEvent, Plugin, Refusal, SCORE_MAX};
use crate::scheduler::pod::PodInfo;

pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        let mut reasons = Vec::new();
        let mut never = false;
        if node.pod_count() + 1 > node.pods_max() {
            reasons.push("Too many pods".to_owned());
        }
        for (resource, asked) in &pod.requests {
            let allocatable = node.allocatable(resource);
            if *asked > 0 && *asked > allocatable - node.requested(resource) {
                reasons.push(format!("Insufficient {resource}"));
                never |= *asked > allocatable;
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Refusal { reasons, unresolvable: never })
    }

    fn weight(&self) -> i64 {
        1
    }

    /// `LeastAllocated`: the mean of the free share of CPU and memory.
    fn score(&self, pod: &PodInfo, table: &NodeTable, rows: &[usize]) -> Vec<i64> {
        let free = |used: i64, all: i64| {
            if all == 0 || used > all { 0 } else { (all - used) * SCORE_MAX / all }
        };
        let score = |row: &usize| {
            let node = table.row(*row);
            let (cpu, memory) = node.weighed();
            let all = (node.allocatable("cpu"), node.allocatable("memory"));
            let kinds = i64::from(all.0 > 0) + i64::from(all.1 > 0);
            let sum = free(cpu + pod.weighed.0, all.0) + free(memory + pod.weighed.1, all.1);
            sum / kinds.max(1)
        };
        rows.iter().map(score).collect()
    }

    fn wakes_on(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::Node, ClusterEvent::PodGone]
    }
}
