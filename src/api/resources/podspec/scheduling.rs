//! Where a pod may run: affinity, tolerations, spreading, gates.
//!
//! Why the node's taints too: a taint's and a toleration's effect are one list.

use super::super::field::{Errors, Field};
use super::super::{names, validate};
use crate::object::status::FieldError;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The pod's `affinity`.
pub(super) fn affinity(field: &Field, out: &mut Errors) {
    let node = field.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() {
        node_selector(&required, out);
    }
    for preferred in node.get(PREFERRED).items() {
        weight(&preferred, out);
        node_selector_term(&preferred.get("preference"), false, out);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = field.get(kind);
        kind.get(REQUIRED).items().for_each(|term| pod_term(&term, out));
        for preferred in kind.get(PREFERRED).items() {
            weight(&preferred, out);
            pod_term(&preferred.get("podAffinityTerm"), out);
        }
    }
}

fn weight(of: &Field, out: &mut Errors) {
    let weight = of.get("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        out.push(weight.invalid_as(weight.int().unwrap_or(0), "must be in the range 1-100"));
    }
}

/// A NodeSelector.
pub(in super::super) fn node_selector(field: &Field, out: &mut Errors) {
    let terms = field.get("nodeSelectorTerms");
    if terms.is_empty() {
        out.push(terms.required("must have at least one node selector term"));
    }
    terms.items().for_each(|term| node_selector_term(&term, true, out));
}

fn node_selector_term(term: &Field, check_values: bool, out: &mut Errors) {
    for need in term.get("matchExpressions").items() {
        let (operator, values) = (need.get("operator"), need.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                out.push(values.required(why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                out.push(values.forbidden(why));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                out.push(values.required(why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => out.push(operator.invalid_as(other, "not a valid selector operator")),
        }
        validate::format(&need.get("key"), names::qualified_name, out);
        if check_values {
            values.items().for_each(|value| validate::format(&value, names::label_value, out));
        }
    }
    for need in term.get("matchFields").items() {
        let (operator, values, key) = (need.get("operator"), need.get("values"), need.get("key"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 1 => {}
            "In" | "NotIn" => out.push(values.required(
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            other => out.push(operator.invalid_as(other, "not a valid selector operator")),
        }
        if key.text() == "metadata.name" {
            values.items().for_each(|value| validate::format(&value, names::dns_subdomain, out));
        } else {
            out.push(key.invalid_as(key.text(), "not a valid field selector key"));
        }
    }
}

fn pod_term(term: &Field, out: &mut Errors) {
    validate::label_selector(&term.get("labelSelector"), out);
    validate::label_selector(&term.get("namespaceSelector"), out);
    for namespace in term.get("namespaces").items() {
        for fault in names::dns_label(namespace.text()) {
            out.push(term.get("namespace").invalid_as(namespace.text(), fault));
        }
    }
    label_keys(term, out);
    let topology = term.get("topologyKey");
    if topology.text().is_empty() {
        out.push(topology.required("can not be empty"));
    }
    validate::format(&topology, names::qualified_name, out);
}

/// `matchLabelKeys` and `mismatchLabelKeys`.
fn label_keys(of: &Field, out: &mut Errors) {
    let selector = of.get("labelSelector");
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = of.get(name);
        if keys.is_empty() {
            continue;
        }
        if !selector.is_set() {
            out.push(keys.forbidden("must not be specified when labelSelector is not set"));
        }
        keys.items().for_each(|key| validate::format(&key, names::qualified_name, out));
    }
    let mismatched = of.get("mismatchLabelKeys");
    for key in of.get("matchLabelKeys").items() {
        if mismatched.items().any(|other| other.text() == key.text()) {
            out.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

/// The pod's `tolerations`.
pub(in super::super) fn tolerations(list: &Field, out: &mut Errors) {
    for toleration in list.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        validate::optional_format(&key, names::qualified_name, out);
        if key.text().is_empty() && operator.text() != "Exists" {
            out.push(operator.invalid_as(
                operator.text(),
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            ));
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(effect.invalid_as(effect.text(), why));
        }
        match operator.text() {
            "Equal" | "" => {
                let faults = names::label_value(value.text());
                if !faults.is_empty() {
                    out.push(operator.invalid_as(value.text(), faults.join(";")));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                out.push(operator.invalid_as(value.text(), why));
            }
            "Exists" => {}
            "Lt" | "Gt" => out.push(operator.not_supported(&["Equal", "Exists", "Lt", "Gt"])),
            _ => out.push(operator.not_supported(&["Equal", "Exists"])),
        }
        if !effect.text().is_empty() && !EFFECTS.contains(&effect.text()) {
            out.push(effect.not_supported(EFFECTS));
        }
    }
}

/// A node's `taints`.
pub(in super::super) fn taints(list: &Field, out: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        validate::format(&key, names::qualified_name, out);
        let faults = names::label_value(value.text());
        if !faults.is_empty() {
            out.push(value.invalid_as(value.text(), faults.join(";")));
        }
        validate::one_of(&effect, EFFECTS, out);
        let pair = (effect.text(), key.text());
        if seen.contains(&pair) {
            let mut fault: FieldError = taint.duplicate();
            "taints must be unique by key and effect pair".clone_into(&mut fault.detail);
            out.push(fault);
        }
        seen.push(pair);
    }
}

/// The pod's `topologySpreadConstraints`.
pub(super) fn spread(list: &Field, out: &mut Errors) {
    let pair = |constraint: &Field<'_, '_>| {
        let key = constraint.get("topologyKey").text().to_owned();
        (key, constraint.get("whenUnsatisfiable").text().to_owned())
    };
    for (at, constraint) in list.items().enumerate() {
        let (skew, key) = (constraint.get("maxSkew"), constraint.get("topologyKey"));
        let action = constraint.get("whenUnsatisfiable");
        if skew.int().unwrap_or(0) <= 0 {
            out.push(skew.invalid_as(skew.int().unwrap_or(0), validate::NOT_POSITIVE));
        }
        if key.text().is_empty() {
            out.push(key.required("can not be empty"));
        }
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            let shown = FieldError::not_supported(
                action.path(),
                action.text(),
                &["DoNotSchedule", "ScheduleAnyway"],
            );
            out.push(shown);
        }
        let own = pair(&constraint);
        if list.items().skip(at + 1).any(|other| pair(&other) == own) {
            let path = constraint.get("{topologyKey, whenUnsatisfiable}").path();
            out.push(FieldError::duplicate(path, format!("{{{}, {}}}", own.0, own.1)));
        }
        let domains = constraint.get("minDomains");
        if let Some(count) = domains.int() {
            if count <= 0 {
                out.push(domains.invalid(validate::NOT_POSITIVE));
            }
            if action.text() != "DoNotSchedule" {
                let action = action.text();
                out.push(domains.invalid(format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                )));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            validate::optional_one_of(&constraint.get(policy), &["Honor", "Ignore"], out);
        }
        label_keys(&constraint, out);
        validate::label_selector(&constraint.get("labelSelector"), out);
    }
}

/// The pod's `schedulingGates`.
pub(super) fn gates(list: &Field, out: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for gate in list.items() {
        let name = gate.get("name").text().to_owned();
        for fault in names::qualified_name(&name) {
            out.push(gate.invalid_as(name.as_str(), fault));
        }
        let text = gate.value().get("name").and_then(|name| name.as_str()).unwrap_or("");
        if seen.contains(&text) {
            out.push(FieldError::duplicate(gate.path(), name));
        }
        seen.push(text);
    }
}
