//! Prefers nodes whose CPU and memory would be used evenly with the pod on them.
//!
//! Why before and after: what counts is whether the pod improves the balance (upstream's
//! `balancedResourceScorer`, since 1.35).

use crate::scheduler::cache::NodeTable;
use crate::scheduler::framework::{Plugin, SCORE_MAX};
use crate::scheduler::pod::PodInfo;

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, table: &NodeTable, rows: &[usize]) -> Vec<i64> {
        let ask = |name: &str| pod.requests.get(name).copied().unwrap_or(0);
        let (cpu, memory) = (ask("cpu"), ask("memory"));
        if cpu == 0 && memory == 0 {
            return vec![0; rows.len()];
        }
        let score = |row: &usize| {
            let node = table.row(*row);
            let all = [node.allocatable("cpu"), node.allocatable("memory")];
            let used = [node.requested("cpu"), node.requested("memory")];
            let with = balance([used[0] + cpu, used[1] + memory], all);
            let without = balance(used, all);
            SCORE_MAX / 2 + (SCORE_MAX / 2 + with - without) / 2
        };
        rows.iter().map(score).collect()
    }
}

/// One less the standard deviation of the used shares, of [`SCORE_MAX`].
fn balance(used: [i64; 2], all: [i64; 2]) -> i64 {
    let shares: Vec<f64> = used
        .iter()
        .zip(all)
        .filter(|(_, all)| *all > 0)
        .map(|(used, all)| (*used as f64 / all as f64).min(1.0))
        .collect();
    // Of two values the deviation is half their distance.
    let deviation = match shares.as_slice() {
        [one, other] => (one - other).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::balance;

    #[test]
    fn even_use_scores_highest() {
        assert_eq!(balance([50, 50], [100, 100]), 100);
        assert_eq!(balance([100, 0], [100, 100]), 50);
        assert!(balance([60, 40], [100, 100]) > balance([80, 20], [100, 100]));
    }
}
