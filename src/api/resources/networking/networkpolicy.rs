//! NetworkPolicy.

use serde_json::json;

use super::super::columns::{AGE, Cell, col, list, selector};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, list_mut};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::status::FieldError;
use crate::object::{Map, Value};

/// The NetworkPolicy's strategy.
pub(in super::super) const NETWORK_POLICY: Declared = Declared {
    defaults,
    rules: &[
        ("spec.podSelector", Rule::Selector),
        ("spec", Rule::Check(directions)),
        ("spec.policyTypes", Rule::Check(types)),
    ],
    generation: true,
    columns: &[col("Pod-Selector"), AGE],
    cells: &[Cell::Made(|object| selector(object, &["spec", "podSelector"])), Cell::Age],
    ..Declared::NONE
};

fn defaults(object: &mut Value) {
    let egress = !list(object, &["spec", "egress"]).is_empty();
    let Some(spec) = child_mut(object, &["spec"]) else { return };
    let none =
        |spec: &Map| spec.get("policyTypes").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if none(spec) {
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
    for direction in ["ingress", "egress"] {
        for rule in list_mut(spec, direction).filter_map(Value::as_object_mut) {
            for port in list_mut(rule, "ports").filter_map(Value::as_object_mut) {
                fill(port, "protocol", "TCP");
            }
        }
    }
}

fn types(list: &Field, out: &mut Errors) {
    if list.len() > 2 {
        out.push(list.invalid("may not specify more than two policyTypes"));
    }
    list.items().for_each(|one| {
        validate::optional_one_of(&one, &["Ingress", "Egress"], out);
    });
}

fn directions(spec: &Field, out: &mut Errors) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            rule.get("ports").items().for_each(|one| port(&one, out));
            rule.get(peers).items().for_each(|one| peer(&one, out));
        }
    }
}

fn port(item: &Field, out: &mut Errors) {
    let (port, end) = (item.get("port"), item.get("endPort"));
    validate::optional_one_of(&item.get("protocol"), validate::PROTOCOLS, out);
    if !port.is_set() {
        if end.is_set() {
            out.push(end.invalid("may not be specified when `port` is not specified"));
        }
        return;
    }
    validate::port_number_or_name(&port, out);
    if !end.is_set() {
        return;
    }
    match port.int() {
        None => out.push(end.invalid("may not be specified when `port` is non-numeric")),
        Some(start) => {
            if end.int().is_some_and(|end| end < start) {
                out.push(end.invalid_as(start, "must be greater than or equal to `port`"));
            }
            validate::port_number(&end, out);
        }
    }
}

fn peer(peer: &Field, out: &mut Errors) {
    let block = peer.get("ipBlock");
    let selectors = [peer.get("podSelector"), peer.get("namespaceSelector")];
    selectors.iter().for_each(|selector| validate::label_selector(selector, out));
    let selects = selectors.iter().any(|selector| selector.is_set());
    if block.is_set() {
        ip_block(&block, out);
        if selects {
            out.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
    } else if !selects {
        out.push(peer.required("must specify a peer"));
    }
}

fn ip_block(block: &Field, out: &mut Errors) {
    let cidr = block.get("cidr");
    validate::required_format(&cidr, names::cidr, out);
    let Some((network, length)) = names::parse_cidr(cidr.text()) else { return };
    for except in block.get("except").items() {
        validate::format(&except, names::cidr, out);
        let Some((inner, inner_length)) = names::parse_cidr(except.text()) else { continue };
        let inside = inner.is_ipv4() == network.is_ipv4()
            && names::masked(inner, length) == names::masked(network, length);
        if !inside || length >= inner_length {
            let path = except.path();
            let why = "must be a strict subset of `cidr`";
            out.push(FieldError::invalid(path, except.text(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};

    #[test]
    fn types_follow_the_rules_and_blocks_nest() {
        let policy = created(
            &NETWORK_POLICY,
            json!({"spec": {"podSelector": {}, "egress": [{
                "ports": [{"port": 80, "endPort": 70}],
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}, {}],
            }]}}),
        );
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(
            errors_of_create(&NETWORK_POLICY, &policy),
            [
                "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or \
                 equal to `port`",
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be \
                 a strict subset of `cidr`",
                "spec.egress[0].to[1]: Required value: must specify a peer",
            ]
        );
    }
}
