//! Node selector and node affinity: required terms refuse, preferred terms score.
//!
//! Why one plug-in for both: they answer the same question about the same labels.

use crate::reconcile::predicates::{node_affinity_matches, term_matches};
use crate::scheduler::cache::{NodeRow, NodeTable};
use crate::scheduler::framework::{Plugin, Refusal, normalize};
use crate::scheduler::pod::PodInfo;

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        if node.node().is_some_and(|node| node_affinity_matches(&pod.pod, node)) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, table: &NodeTable, rows: &[usize]) -> Vec<i64> {
        let spec = pod.pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
        let terms = affinity
            .and_then(|all| all.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        let wished = |row: &usize| {
            let Some(node) = table.row(*row).node() else { return 0 };
            let met = terms.iter().filter(|term| term_matches(&term.preference, node));
            met.map(|term| i64::from(term.weight)).sum()
        };
        normalize(rows.iter().map(wished).collect(), false)
    }
}
