//! One decision: filter, score, choose. Pure but for the tie-break that is handed in.
//!
//! Why the tie-break is a number from outside: equal nodes must share the load, and a test must get
//! the same answer twice.

use std::collections::BTreeMap;

use super::cache::NodeTable;
use super::framework::{Plugin, Refusal};
use super::pod::PodInfo;

/// What came of a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Bind the pod to this node.
    Bind(String),
    /// No node can take it.
    Unschedulable {
        /// As the event and the condition say it.
        message: String,
        /// The plug-ins that refused.
        refused_by: Vec<&'static str>,
    },
}

/// Finds a node for `pod`.
pub fn schedule(
    pod: &PodInfo,
    table: &NodeTable,
    plugins: &[Box<dyn Plugin>],
    tie_break: u64,
) -> Decision {
    let mut feasible = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut refused_by: Vec<&'static str> = Vec::new();
    let mut nodes = 0;
    for row in table.rows() {
        nodes += 1;
        match first_refusal(pod, plugins, &row) {
            None => feasible.push(row.index),
            Some((plugin, refusal)) => {
                if !refused_by.contains(&plugin) {
                    refused_by.push(plugin);
                }
                for reason in refusal.reasons {
                    *reasons.entry(reason).or_insert(0) += 1;
                }
            }
        }
    }
    if nodes == 0 {
        let message = "no nodes available to schedule pods".to_owned();
        return Decision::Unschedulable { message, refused_by };
    }
    if feasible.is_empty() {
        return Decision::Unschedulable { message: explain(nodes, &reasons), refused_by };
    }
    Decision::Bind(best(pod, table, plugins, &feasible, tie_break))
}

fn first_refusal(
    pod: &PodInfo,
    plugins: &[Box<dyn Plugin>],
    row: &super::cache::NodeRow<'_>,
) -> Option<(&'static str, Refusal)> {
    plugins
        .iter()
        .find_map(|plugin| plugin.filter(pod, row).err().map(|refusal| (plugin.name(), refusal)))
}

/// Upstream's `FitError`: how many nodes refused for which reason, the texts sorted.
fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut texts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    format!("0/{nodes} nodes are available: {}.", texts.join(", "))
}

fn best(
    pod: &PodInfo,
    table: &NodeTable,
    plugins: &[Box<dyn Plugin>],
    feasible: &[usize],
    tie_break: u64,
) -> String {
    let mut totals = vec![0_i64; feasible.len()];
    if feasible.len() > 1 {
        for plugin in plugins.iter().filter(|plugin| plugin.weight() > 0) {
            let scores = plugin.score(pod, table, feasible);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += plugin.weight() * score;
            }
        }
    }
    let top = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = feasible
        .iter()
        .zip(&totals)
        .filter(|(_, total)| **total == top)
        .map(|(index, _)| *index)
        .collect();
    let chosen = ties[(tie_break % ties.len() as u64) as usize];
    table.row(chosen).name().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scheduler::plugins;
    use serde_json::{Value, json};

    fn node(name: &str, cpu: &str, more: Value) -> Arc<k8s_openapi::api::core::v1::Node> {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}},
        });
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn pod(name: &str, cpu: &str, spec: Value) -> PodInfo {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
        let mut whole = json!({"containers": [container]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let meta = json!({"name": name, "namespace": "default", "uid": name});
        let pod = json!({"metadata": meta, "spec": whole});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn decide(pod: &PodInfo, table: &NodeTable) -> Decision {
        schedule(pod, table, &plugins::all(), 0)
    }

    fn refusal(pod: &PodInfo, table: &NodeTable) -> String {
        match decide(pod, table) {
            Decision::Unschedulable { message, .. } => message,
            Decision::Bind(node) => panic!("bound to {node}"),
        }
    }

    #[test]
    fn refusals_are_counted_and_worded_as_upstream() {
        let mut table = NodeTable::default();
        assert_eq!(
            refusal(&pod("p", "1", json!({})), &table),
            "no nodes available to schedule pods"
        );
        table.set_node(node("a", "500m", json!({})));
        table.set_node(node("b", "500m", json!({})));
        let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        table.set_node(node("c", "4", json!({"spec": taint})));
        table.set_node(node("d", "4", json!({"spec": {"unschedulable": true}})));
        assert_eq!(
            refusal(&pod("p", "1", json!({})), &table),
            "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were \
             unschedulable, 2 Insufficient cpu."
        );
        let selector = json!({"nodeSelector": {"disk": "ssd"}});
        assert!(
            refusal(&pod("p", "100m", selector), &table)
                .contains("2 node(s) didn't match Pod's node affinity/selector")
        );
    }

    #[test]
    fn assumed_pods_count_and_leave_again() {
        let mut table = NodeTable::default();
        table.set_node(node("a", "1", json!({})));
        let first = pod("first", "800m", json!({}));
        assert_eq!(decide(&first, &table), Decision::Bind("a".into()));
        table.add_pod(first, "a");
        let second = pod("second", "800m", json!({}));
        assert_eq!(refusal(&second, &table), "0/1 nodes are available: 1 Insufficient cpu.");
        assert!(table.remove_pod("first"));
        assert_eq!(decide(&second, &table), Decision::Bind("a".into()));
        for name in ["x", "y", "z"] {
            table.add_pod(pod(name, "0", json!({})), "a");
        }
        assert_eq!(refusal(&second, &table), "0/1 nodes are available: 1 Too many pods.");
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut table = NodeTable::default();
        table.set_node(node("a", "4", json!({})));
        table.set_node(node("b", "4", json!({})));
        table.add_pod(pod("old", "2", json!({})), "a");
        assert_eq!(decide(&pod("new", "1", json!({})), &table), Decision::Bind("b".into()));
    }

    #[test]
    fn host_ports_collide_by_address_and_protocol() {
        let mut table = NodeTable::default();
        table.set_node(node("a", "4", json!({})));
        let with_port = |name: &str, ip: &str, protocol: &str| {
            let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": ip,
                "protocol": protocol});
            let container = json!({"name": "c", "image": "i", "ports": [port]});
            pod(name, "0", json!({"containers": [container]}))
        };
        table.add_pod(with_port("one", "127.0.0.1", "TCP"), "a");
        assert!(matches!(decide(&with_port("p", "127.0.0.1", "UDP"), &table), Decision::Bind(_)));
        assert!(matches!(decide(&with_port("p", "10.0.0.1", "TCP"), &table), Decision::Bind(_)));
        assert_eq!(
            refusal(&with_port("p", "", "TCP"), &table),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        );
    }

    #[test]
    fn a_removed_node_takes_no_pod_and_its_row_is_used_again() {
        let mut table = NodeTable::default();
        table.set_node(node("a", "4", json!({})));
        table.add_pod(pod("old", "1", json!({})), "a");
        table.remove_node("a");
        assert!(matches!(
            decide(&pod("p", "1", json!({})), &table),
            Decision::Unschedulable { .. }
        ));
        table.remove_pod("old");
        table.set_node(node("b", "4", json!({})));
        assert_eq!(table.len(), 1);
        assert_eq!(decide(&pod("p", "1", json!({})), &table), Decision::Bind("b".into()));
    }
}
