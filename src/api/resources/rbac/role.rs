//! Role and ClusterRole: the same rules, in a namespace or over all of them.

use super::super::columns::{Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::names;
use super::super::rules::Rule;
use super::super::validate;
use crate::object::meta;

/// The Role's strategy.
pub(in super::super) const ROLE: Declared = Declared {
    name: names::path_segment,
    rules: &[("rules[]", Rule::Check(|rule, out| policy_rule(rule, true, out)))],
    create_on_update: true,
    columns: &[col("Created At")],
    cells: &[Cell::Made(|object| meta::text(object, &["metadata", "creationTimestamp"]).into())],
    ..Declared::NONE
};

/// The ClusterRole's strategy.
pub(in super::super) const CLUSTER_ROLE: Declared = Declared {
    rules: &[
        ("rules[]", Rule::Check(|rule, out| policy_rule(rule, false, out))),
        ("aggregationRule", Rule::Check(aggregation)),
    ],
    ..ROLE
};

fn policy_rule(rule: &Field, namespaced: bool, out: &mut Errors) {
    let (verbs, urls) = (rule.get("verbs"), rule.get("nonResourceURLs"));
    let (groups, resources) = (rule.get("apiGroups"), rule.get("resources"));
    if verbs.is_empty() {
        out.push(verbs.required("verbs must contain at least one value"));
    }
    if !urls.is_empty() {
        if namespaced {
            out.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if !(groups.is_empty() && resources.is_empty() && rule.get("resourceNames").is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            out.push(urls.invalid(why));
        }
        return;
    }
    if groups.is_empty() {
        out.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        out.push(resources.required("resource rules must supply at least one resource"));
    }
}

fn aggregation(rule: &Field, out: &mut Errors) {
    let selectors = rule.get("clusterRoleSelectors");
    if rule.is_set() && selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        out.push(selectors.required(why));
    }
    selectors.items().for_each(|selector| validate::label_selector(&selector, out));
}
