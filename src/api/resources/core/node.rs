//! Node.
//!
//! Why a new Node keeps its status: the kubelet registers with what it has measured.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::columns::{AGE, col, condition, list, or, wide};
use super::super::field::{Errors, Field};
use super::super::podspec::scheduling;
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The Node's strategy.
pub(in super::super) struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        let status = ["status", "allocatable"];
        if meta::at(object, &status).is_none()
            && let Some(capacity) = meta::at(object, &["status", "capacity"]).cloned()
        {
            meta::set(object, &status, capacity);
        }
        // The single CIDR is the first of the list.
        let first = list(object, &["spec", "podCIDRs"]).first().cloned();
        let one = meta::text(object, &["spec", "podCIDR"]).to_owned();
        match first {
            Some(first) => meta::set(object, &["spec", "podCIDR"], first),
            None if !one.is_empty() => {
                meta::set(object, &["spec", "podCIDRs"], vec![Value::from(one)]);
            }
            None => {}
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, _object: &mut Value) {}

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(object, &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(new, &mut out);
        let root = Field::root(new);
        let status = root.get("status");
        let addresses = status.get("addresses");
        for (at, address) in addresses.items().enumerate() {
            if addresses.items().take(at).any(|other| other.value() == address.value()) {
                out.push(address.duplicate());
            }
        }
        for (name, path) in [("podCIDR", "podCIDRs"), ("providerID", "providerID")] {
            let at = ["spec", path];
            let before = meta::at(old, &at).unwrap_or(&Value::Null);
            let set = !validate::same(before, &Value::Null) && before != "";
            if set && !validate::same(before, meta::at(new, &at).unwrap_or(&Value::Null)) {
                let why = format!("node updates may not change {name} except from \"\" to valid");
                out.push(FieldError::forbidden(format!("spec.{path}"), why));
            }
        }
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_cordoned(object).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Status"),
            col("Roles"),
            AGE,
            col("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |name: &str| meta::text(object, &["status", "nodeInfo", name]);
        let mut status = match condition(object, "Ready") {
            "" => "Unknown".to_owned(),
            "True" => "Ready".to_owned(),
            _ => "NotReady".to_owned(),
        };
        if is_cordoned(object) {
            status.push_str(",SchedulingDisabled");
        }
        let mut kernel = or(info("kernelVersion"), "<unknown>").to_owned();
        if !info("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info("architecture"));
        }
        vec![
            status.into(),
            or(&roles(object), "<none>").into(),
            age(object, now).into(),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            or(info("osImage"), "<unknown>").into(),
            kernel.into(),
            or(info("containerRuntimeVersion"), "<unknown>").into(),
        ]
    }
}

fn is_cordoned(object: &Value) -> bool {
    meta::at(object, &["spec", "unschedulable"]) == Some(&Value::Bool(true))
}

fn roles(object: &Value) -> String {
    let labels = meta::labels(object).into_iter().flatten();
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/")
    {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> = labels.filter_map(role).filter(|role| !role.is_empty()).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    list(object, &["status", "addresses"])
        .iter()
        .find(|address| meta::text(address, &["type"]) == kind)
        .map_or("<none>", |address| meta::text(address, &["address"]))
}

fn check(object: &Value, out: &mut Errors) {
    let root = Field::root(object);
    let (spec, status) = (root.get("spec"), root.get("status"));
    // Upstream says metadata.taints.
    let metadata = root.get("metadata");
    scheduling::taints(&metadata.named("taints", spec.get("taints").value()), out);
    for list in ["capacity", "allocatable"] {
        let list = status.get(list);
        for (name, amount) in list.entries() {
            let amount = list.named(name, amount.value());
            validate::resource_amount(name, &amount, out);
        }
    }
    let cidrs = spec.get("podCIDRs");
    cidrs.items().for_each(|cidr| validate::format(&cidr, names::cidr, out));
    let families: BTreeSet<bool> = cidrs
        .items()
        .filter_map(|cidr| Some(names::parse_cidr(cidr.text())?.0.is_ipv4()))
        .collect();
    if cidrs.len() > 1 && (families.len() != 2 || cidrs.len() > 2) {
        out.push(cidrs.invalid("may specify no more than one CIDR for each IP family"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_update};
    use serde_json::json;

    #[test]
    fn the_table_shows_state_and_roles() {
        let node = json!({
            "metadata": {"labels": {"node-role.kubernetes.io/worker": "",
                                    "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                       "nodeInfo": {"kernelVersion": "6.1", "architecture": "amd64"}},
        });
        let cells = Node.cells(&node, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[0], "Ready,SchedulingDisabled");
        assert_eq!(cells[1], "control-plane,worker");
        assert_eq!(cells[7], "6.1 (amd64)");
    }

    #[test]
    fn a_pod_range_is_given_once() {
        let old = created(&Node, json!({"spec": {"podCIDR": "10.0.0.0/24"}}));
        assert_eq!(old["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
        let new = created(&Node, json!({"spec": {"podCIDR": "10.0.1.0/24"}}));
        assert_eq!(
            errors_of_update(&Node, "", &new, &old),
            ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to \
              valid"]
        );
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let tainted = json!({"spec": {"taints": [taint, taint]}});
        let texts = errors_of_update(&Node, "", &tainted, &json!({}));
        assert!(texts[0].ends_with("taints must be unique by key and effect pair"), "{texts:?}");
    }
}
