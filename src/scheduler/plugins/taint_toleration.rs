//! Refuses nodes with taints that the pod does not tolerate, and prefers those with fewer soft ones.
//!
//! Why two parts: `NoSchedule` and `NoExecute` are hard, `PreferNoSchedule` is a wish.

use crate::reconcile::predicates::{tolerates, untolerated};
use crate::scheduler::cache::{NodeRow, NodeTable};
use crate::scheduler::framework::{Plugin, Refusal, normalize};
use crate::scheduler::pod::PodInfo;

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeRow<'_>) -> Result<(), Refusal> {
        let spec = node.node().and_then(|node| node.spec.as_ref());
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        match untolerated(taints, &pod.tolerations, &["NoSchedule", "NoExecute"]) {
            None => Ok(()),
            Some(_) => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
        }
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, table: &NodeTable, rows: &[usize]) -> Vec<i64> {
        let intolerable = |row: &usize| {
            let spec = table.row(*row).node().and_then(|node| node.spec.as_ref());
            let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
            let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
            let hurts = soft.filter(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)));
            hurts.count() as i64
        };
        normalize(rows.iter().map(intolerable).collect(), true)
    }
}
