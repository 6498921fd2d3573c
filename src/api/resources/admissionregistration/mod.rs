//! The admissionregistration.k8s.io group.

pub(super) mod policy;
pub(super) mod policybinding;
pub(super) mod webhook;

use serde_json::json;

use super::field::{Errors, Field};
use super::fill::{fill, list_mut};
use super::validate;
use crate::object::{Map, Value};

/// Defaults of what an object matches, in a webhook or a policy.
fn default_match(map: &mut Map) {
    fill(map, "matchPolicy", "Equivalent");
    fill(map, "namespaceSelector", json!({}));
    fill(map, "objectSelector", json!({}));
    for list in ["rules", "resourceRules", "excludeResourceRules"] {
        for rule in list_mut(map, list).filter_map(Value::as_object_mut) {
            fill(rule, "scope", "*");
        }
    }
}

/// What an object matches: policy, selectors.
fn check_match(of: &Field, out: &mut Errors) {
    validate::optional_one_of(&of.get("matchPolicy"), &["Equivalent", "Exact"], out);
    validate::label_selector(&of.get("namespaceSelector"), out);
    validate::label_selector(&of.get("objectSelector"), out);
}

/// Resources and operations.
fn check_rule(rule: &Field, out: &mut Errors) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let starred = |list: &Field| list.items().any(|item| item.text() == "*");
    let operations = rule.get("operations");
    validate::required(&operations, out);
    if operations.len() > 1 && starred(&operations) {
        out.push(operations.invalid("if '*' is present, must not specify other operations"));
    }
    operations.items().for_each(|operation| {
        validate::optional_one_of(&operation, OPERATIONS, out);
    });
    for (name, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(name);
        validate::required(&list, out);
        if list.len() > 1 && starred(&list) {
            out.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
        }
    }
    rule.get("apiVersions").items().for_each(|version| validate::required(&version, out));
    let resources = rule.get("resources");
    validate::required(&resources, out);
    resources.items().for_each(|resource| validate::required(&resource, out));
    validate::optional_one_of(&rule.get("scope"), &["*", "Cluster", "Namespaced"], out);
}
