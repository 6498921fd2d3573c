//! FlowSchema.

use serde_json::json;

use super::super::columns::{AGE, Cell, col, condition, number, or};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::rules::Rule;
use super::super::{names, validate};

/// The FlowSchema's strategy.
pub(in super::super) const FLOW_SCHEMA: Declared = Declared {
    defaults: |object| {
        if let Some(spec) = child_mut(object, &["spec"]) {
            fill(spec, "matchingPrecedence", 1000);
        }
    },
    rules: &[
        ("spec.matchingPrecedence", Rule::Range(1, 10_000)),
        ("spec.priorityLevelConfiguration.name", Rule::Is(names::dns_subdomain)),
        ("spec.distinguisherMethod.type", Rule::MayBeOneOf(&["ByNamespace", "ByUser"])),
        ("spec.rules[]", Rule::Check(rule)),
    ],
    generation: true,
    new_status: || Some(json!({})),
    columns: &[
        col("PriorityLevel"),
        col("MatchingPrecedence"),
        col("DistinguisherMethod"),
        AGE,
        col("MissingPL"),
    ],
    cells: &[
        Cell::Text(&["spec", "priorityLevelConfiguration", "name"]),
        Cell::Made(|object| number(object, &["spec", "matchingPrecedence"]).into()),
        Cell::Or(&["spec", "distinguisherMethod", "type"], "<none>"),
        Cell::Age,
        Cell::Made(|object| or(condition(object, "Dangling"), "?").into()),
    ],
    ..Declared::NONE
};

fn rule(rule: &Field, out: &mut Errors) {
    let (subjects, resources) = (rule.get("subjects"), rule.get("resourceRules"));
    let others = rule.get("nonResourceRules");
    if subjects.is_empty() {
        out.push(subjects.required("subjects must contain at least one value"));
    }
    subjects.items().for_each(|subject| {
        let kinds = ["Group", "ServiceAccount", "User"];
        validate::one_of(&subject.get("kind"), &kinds, out);
    });
    if resources.is_empty() && others.is_empty() {
        out.push(
            rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"),
        );
    }
    for one in resources.items() {
        for name in ["verbs", "apiGroups", "resources"] {
            validate::required(&one.get(name), out);
        }
        let cluster = one.get("clusterScope").flag();
        let namespaces = one.get("namespaces");
        if !cluster && namespaces.is_empty() {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            out.push(namespaces.required(why));
        }
    }
    for one in others.items() {
        validate::required(&one.get("verbs"), out);
        validate::required(&one.get("nonResourceURLs"), out);
    }
}
