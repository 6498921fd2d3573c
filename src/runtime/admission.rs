//! The node's own admission: a pod that was bound here but doesn't fit fails, as upstream.
//!
//! Why again after the scheduler: pods may be bound by hand, and two schedulers may race. The rules
//! are the scheduler's own ([`crate::reconcile::predicates`]), so both always agree.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::Host;
use crate::reconcile::Object;
use crate::reconcile::predicates::{
    Amounts, amounts, host_ports, is_terminal, node_affinity_matches, pod_requests,
};

/// Resources that every node has; of others the scheduler's count holds, as upstream.
const OWN_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Why the node refuses a pod: reason and message.
pub fn refuse(host: &Host, pod: &core::Pod) -> Option<(String, String)> {
    let others = host
        .pods
        .list("")
        .into_iter()
        .filter(|other| other.uid() != pod.uid() && has_started(other) && !is_terminal(other));
    let others: Vec<Arc<core::Pod>> = others.collect();
    // Before the Node object is there nothing can have been bound by its labels.
    let node = host.nodes.get("", &host.config.name);
    refuse_on(pod, &others, node.as_deref()?)
}

/// Pods that this node has taken in: their status is ours.
fn has_started(pod: &core::Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

fn refuse_on(
    pod: &core::Pod,
    others: &[Arc<core::Pod>],
    node: &core::Node,
) -> Option<(String, String)> {
    if !node_affinity_matches(pod, node) {
        let text =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(("NodeAffinity".to_owned(), text.to_owned()));
    }
    let taken: Vec<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|other| port.conflicts(other))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested \
                    pod ports";
        return Some(("NodePorts".to_owned(), text.to_owned()));
    }
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let capacity = amounts(allocatable);
    let mut used = Amounts::new();
    for (name, more) in others.iter().flat_map(|other| pod_requests(other)) {
        *used.entry(name).or_insert(0) += more;
    }
    let short = |name: &str, wanted: i64, used: i64| {
        let capacity = capacity.get(name).copied().unwrap_or(0);
        (wanted > 0 && used + wanted > capacity).then(|| {
            let text = format!(
                "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, \
                 capacity: {capacity}"
            );
            (format!("OutOf{name}"), text)
        })
    };
    let requests = pod_requests(pod);
    short("pods", 1, others.len() as i64).or_else(|| {
        OWN_RESOURCES.iter().find_map(|name| {
            let of = |amounts: &Amounts| amounts.get(*name).copied().unwrap_or(0);
            short(name, of(&requests), of(&used))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::{Value, json};

    fn refused(spec: Value, other: Value) -> Option<String> {
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "1", "pods": "2"}}});
        let node = serde_json::from_value(node).unwrap();
        let refusal = refuse_on(&model(spec).pod, &[model(other).pod], &node);
        refusal.map(|(reason, _)| reason)
    }

    #[test]
    fn what_does_not_fit_is_refused_with_upstreams_reason() {
        let pod = |cpu: &str, port: i32| {
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": port}],
                "resources": {"requests": {"cpu": cpu}}}]})
        };
        assert_eq!(refused(pod("500m", 80), pod("500m", 81)), None);
        assert_eq!(refused(pod("501m", 80), pod("500m", 81)).as_deref(), Some("OutOfcpu"));
        assert_eq!(refused(pod("1m", 80), pod("1m", 80)).as_deref(), Some("NodePorts"));
        let selector = json!({"nodeSelector": {"disk": "hdd"}, "containers": []});
        assert_eq!(refused(selector, json!({"containers": []})).as_deref(), Some("NodeAffinity"));
    }
}
