//! The node's own admission: a pod that was bound here but doesn't fit fails, as upstream.
//!
//! Why again after the scheduler: pods may be bound by hand, and two schedulers may race.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::pods::{Kind, Model, Unit};
use super::{Host, node, resources};
use crate::object::quantity::Quantity;
use crate::object::selector::{Operator, Requirement};
use crate::reconcile::Object;

/// What a pod asks for in all: containers and sidecars together, or the largest init container.
pub fn requests(model: &Model) -> BTreeMap<String, Quantity> {
    let of = |unit: &Unit| -> BTreeMap<String, Quantity> {
        let list = unit.spec.resources.as_ref().and_then(|own| own.requests.as_ref());
        let names = list.into_iter().flat_map(|list| list.keys());
        names
            .filter_map(|name| Some((name.clone(), resources::quantity(list, name)?)))
            .collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>| {
        for (name, quantity) in more {
            let known = sum.get(name).copied().unwrap_or(Quantity::ZERO);
            sum.insert(name.clone(), known.plus(quantity));
        }
    };
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    let raise = |peak: &mut BTreeMap<String, Quantity>, other: &BTreeMap<String, Quantity>| {
        for (name, quantity) in other {
            let known = peak.get(name).copied().unwrap_or(Quantity::ZERO);
            if known.minus(quantity).is_negative() {
                peak.insert(name.clone(), *quantity);
            }
        }
    };
    for unit in &model.units {
        match unit.kind {
            Kind::Sidecar => add(&mut sidecars, &of(unit)),
            Kind::Init => {
                let mut with = sidecars.clone();
                add(&mut with, &of(unit));
                raise(&mut peak, &with);
            }
            Kind::Regular | Kind::Ephemeral => {}
        }
    }
    let mut sum = sidecars;
    model.of(Kind::Regular).for_each(|unit| add(&mut sum, &of(unit)));
    raise(&mut sum, &peak);
    if let Some(overhead) = &model.spec().overhead {
        let read = |name: &String| Some((name.clone(), resources::quantity(Some(overhead), name)?));
        add(&mut sum, &overhead.keys().filter_map(read).collect());
    }
    sum
}

/// The host ports of a pod: address, protocol, port.
fn host_ports(model: &Model) -> Vec<(String, String, i32)> {
    let units = model.units.iter().filter(|unit| unit.kind != Kind::Ephemeral);
    let ports = units.flat_map(|unit| unit.spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((address.unwrap_or_else(|| "0.0.0.0".to_owned()), protocol, number))
        })
        .collect()
}

fn collide(a: &(String, String, i32), b: &(String, String, i32)) -> bool {
    let any = |address: &str| address == "0.0.0.0" || address == "::";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}

/// Why the node refuses a pod: reason and message.
pub fn refuse(host: &Host, model: &Model) -> Option<(String, String)> {
    let uid = model.pod.uid();
    let others: Vec<Model> = host
        .pods
        .list("")
        .into_iter()
        .filter(|pod| pod.uid() != uid && counts(pod))
        .map(Model::new)
        .collect();
    let node = node::labels(&host.config);
    let allocatable = node::allocatable(&host.machine);
    fit(model, &others, &node, &host.config.name, &allocatable)
}

/// Pods that started before (their status is ours) and have not ended.
fn counts(pod: &core::Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("");
    let started = status.is_some_and(|status| status.start_time.is_some());
    started && !matches!(phase, "Succeeded" | "Failed")
}

fn fit(
    model: &Model,
    others: &[Model],
    labels: &BTreeMap<String, String>,
    name: &str,
    allocatable: &BTreeMap<String, Quantity>,
) -> Option<(String, String)> {
    if !selects(model, labels, name) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(("NodeAffinity".to_owned(), text.to_owned()));
    }
    let ports = host_ports(model);
    let taken: Vec<_> = others.iter().flat_map(host_ports).collect();
    if ports.iter().any(|port| taken.iter().any(|other| collide(port, other))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod \
                    ports";
        return Some(("NodePorts".to_owned(), text.to_owned()));
    }
    if let Some(capacity) = allocatable.get("pods")
        && others.len() as i64 + 1 > capacity.units()
    {
        let text = format!(
            "Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {}",
            others.len(),
            capacity.units()
        );
        return Some(("OutOfpods".to_owned(), text));
    }
    for (resource, wanted) in requests(model).iter().filter(|(_, wanted)| !wanted.is_zero()) {
        let known = others.iter().filter_map(|other| requests(other).get(resource).copied());
        let used = known.fold(Quantity::ZERO, |sum, more| sum.plus(&more));
        let capacity = allocatable.get(resource).copied().unwrap_or(Quantity::ZERO);
        if capacity.minus(&used).minus(wanted).is_negative() {
            let figure = |quantity: &Quantity| match resource.as_str() {
                "cpu" => quantity.millis(),
                _ => quantity.units(),
            };
            let text = format!(
                "Node didn't have enough resource: {resource}, requested: {}, used: {}, capacity: {}",
                figure(wanted),
                figure(&used),
                figure(&capacity)
            );
            return Some((format!("OutOf{resource}"), text));
        }
    }
    None
}

/// `nodeSelector` and the required node affinity.
fn selects(model: &Model, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let spec = model.spec();
    let plain = spec.node_selector.iter().flatten();
    if !plain.into_iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity.required_during_scheduling_ignored_during_execution.as_ref()
    });
    let Some(required) = required else { return true };
    required.node_selector_terms.iter().any(|term| {
        let fields = term.match_fields.iter().flatten();
        let expressions = term.match_expressions.iter().flatten();
        let empty = term.match_fields.as_ref().is_none_or(Vec::is_empty)
            && term.match_expressions.as_ref().is_none_or(Vec::is_empty);
        let of_node = |key: &str| (key == "metadata.name").then_some(name);
        let of_labels = |key: &str| labels.get(key).map(String::as_str);
        !empty
            && fields.into_iter().all(|one| holds(one, &of_node))
            && expressions.into_iter().all(|one| holds(one, &of_labels))
    })
}

fn holds<'a>(
    requirement: &core::NodeSelectorRequirement,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.iter().flatten().cloned().collect();
    Requirement { key: requirement.key.clone(), operator, values }.matches(get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::json;

    fn refused(spec: serde_json::Value, other: serde_json::Value) -> Option<String> {
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let allocatable = [
            ("cpu".to_owned(), Quantity::from_millis(1000)),
            ("pods".to_owned(), Quantity::from_units(2)),
        ];
        let others = [model(other)];
        fit(&model(spec), &others, &labels, "n1", &allocatable.into()).map(|(reason, _)| reason)
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
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In",
            "values": ["n1"]}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [term]}}});
        let spec = json!({"affinity": affinity, "containers": []});
        assert_eq!(refused(spec, json!({"containers": []})), None);
    }

    #[test]
    fn requests_are_the_larger_of_init_and_running() {
        let ask = |name: &str, cpu: &str| json!({"name": name,
            "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = ask("s", "100m");
        sidecar["restartPolicy"] = json!("Always");
        let model = model(json!({"initContainers": [sidecar, ask("i", "900m")],
            "containers": [ask("a", "300m"), ask("b", "200m")]}));
        assert_eq!(requests(&model)["cpu"].millis(), 1000);
    }
}
