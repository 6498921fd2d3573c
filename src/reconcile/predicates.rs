//! Facts about pods and nodes that several components must agree on: requests, tolerations, node
//! affinity, host ports.
//!
//! Why below them: the scheduler, the node's own admission and the DaemonSet controller would each
//! write them again, and a pod that one lets through and another refuses loops for ever
//! (upstream's `component-helpers` and `kubelet/lifecycle/predicate.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::object::quantity::Quantity;

/// Amounts by resource name; CPU in millis, all else in whole units.
pub type Amounts = BTreeMap<String, i64>;

/// The number that a resource is counted in: millis of CPU, units of all else.
pub fn amount(resource: &str, quantity: &ApiQuantity) -> i64 {
    let parsed = Quantity::parse(&quantity.0).unwrap_or(Quantity::ZERO);
    if resource == "cpu" { parsed.millis() } else { parsed.units() }
}

/// A resource list as amounts.
pub fn amounts(list: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, have)| (name.clone(), amount(name, have))).collect()
}

fn container_requests(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|all| all.requests.as_ref()))
}

fn add(into: &mut Amounts, what: &Amounts) {
    for (name, more) in what {
        *into.entry(name.clone()).or_insert(0) += more;
    }
}

fn raise(into: &mut Amounts, what: &Amounts) {
    for (name, floor) in what {
        let have = into.entry(name.clone()).or_insert(0);
        *have = (*have).max(*floor);
    }
}

/// What a pod asks for: the larger of its containers together and each step of its init containers,
/// sidecars counted from their start on, pod-level requests over both, overhead added
/// (component-helpers `resource.PodRequests`).
pub fn pod_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &container_requests(container));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut step = container_requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &step);
            add(&mut sidecars, &step);
            step = sidecars.clone();
        } else {
            add(&mut step, &sidecars);
        }
        raise(&mut peak, &step);
    }
    raise(&mut total, &peak);
    if let Some(level) = spec.resources.as_ref().and_then(|all| all.requests.as_ref()) {
        total.extend(amounts(Some(level)));
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// Whether a toleration covers a taint (core/v1 `Toleration.ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        "Exists" => true,
        _ => false,
    }
}

/// The first taint with one of `effects` that no toleration covers.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn requirement_matches(need: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operands = need.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let want = operands.first().and_then(|text| number(text));
        matches!((value.and_then(number), want), (Some(have), Some(want)) if holds(have, want))
    };
    match need.operator.as_str() {
        "In" => value.is_some_and(|value| operands.iter().any(|one| one == value)),
        "NotIn" => value.is_none_or(|value| !operands.iter().any(|one| one == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|have, want| have > want),
        "Lt" => compare(|have, want| have < want),
        _ => false,
    }
}

/// Whether a node meets one term: all its expressions and fields; an empty term meets nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| match key {
        "metadata.name" => node.metadata.name.as_deref(),
        _ => None,
    };
    expressions.iter().all(|need| requirement_matches(need, label(&need.key)))
        && fields.iter().all(|need| requirement_matches(need, field(&need.key)))
}

/// Whether a node meets `spec.nodeSelector` and the required node affinity of a pod.
pub fn node_affinity_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.as_ref();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, want)| labels.and_then(|all| all.get(key)) == Some(want));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    selected
        && required.is_none_or(|selector| {
            selector.node_selector_terms.iter().any(|term| term_matches(term, node))
        })
}

/// A host port that a pod claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// "0.0.0.0" for every address.
    pub ip: String,
    /// "TCP", "UDP" or "SCTP".
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// The host ports of a pod, those of sidecars included.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    let claimed = ports.filter(|port| port.host_port.unwrap_or(0) > 0);
    claimed
        .map(|port| HostPort {
            ip: match port.host_ip.as_deref() {
                None | Some("") => "0.0.0.0".to_owned(),
                Some(ip) => ip.to_owned(),
            },
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port.unwrap_or(0),
        })
        .collect()
}

/// Whether a pod has ended (its resources are free again).
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn init_containers_raise_and_sidecars_add() {
        let cpu = |name: &str, cpu: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = cpu("side", "100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = pod(json!({
            "initContainers": [cpu("first", "1"), sidecar, cpu("last", "2")],
            "containers": [cpu("a", "500m"), cpu("b", "500m")],
            "overhead": {"cpu": "10m"},
        }));
        // last: 2000 beside the sidecar's 100, above 500 + 500 + 100; plus overhead
        assert_eq!(pod_requests(&pod)["cpu"], 2110);
    }

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"}))
                .unwrap();
        let covers = |toleration: serde_json::Value| {
            tolerates(&serde_json::from_value(toleration).unwrap(), &taint)
        };
        assert!(covers(json!({"operator": "Exists"})));
        assert!(covers(json!({"key": "k", "value": "v"})));
        assert!(!covers(json!({"key": "k", "value": "w"})));
        assert!(!covers(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})));
    }

    #[test]
    fn affinity_terms_are_alternatives() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "n", "labels": {"zone": "a", "cores": "8"}}}),
        )
        .unwrap();
        let with = |terms: serde_json::Value| {
            let required = json!({"nodeSelectorTerms": terms});
            let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
            pod(json!({"containers": [], "affinity": {"nodeAffinity": affinity}}))
        };
        let zone_b =
            json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        let cores =
            json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]});
        assert!(node_affinity_matches(&with(json!([zone_b, cores])), &node));
        assert!(!node_affinity_matches(&with(json!([zone_b])), &node));
        assert!(!node_affinity_matches(&with(json!([{}])), &node));
    }
}
