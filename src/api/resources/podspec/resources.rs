//! Resource requests and limits: validation, pod-level defaults, quality of service.
//!
//! Why together: the three read the same two maps with the same idea of what a resource is.

use std::collections::BTreeMap;

use super::super::field::{Errors, Field};
use super::super::fill::map_mut;
use super::super::{names, validate};
use crate::object::quantity::Quantity;
use crate::object::{Map, Value};

const HUGE_PAGES: &str = "hugepages-";
/// Resources that may be given for the pod as a whole.
const POD_LEVEL: &[&str] = &["cpu", "memory"];

fn is_pod_level(name: &str) -> bool {
    POD_LEVEL.contains(&name) || name.starts_with(HUGE_PAGES)
}

/// Requests below limits make sense only for Kubernetes' own resources without huge pages.
fn may_overcommit(name: &str) -> bool {
    validate::is_native_resource(name) && !name.starts_with(HUGE_PAGES)
}

/// A container's `resources`.
pub(super) fn container(field: &Field, claims: &[&str], out: &mut Errors) {
    requirements(field, container_resource_name, out);
    for claim in field.get("claims").items() {
        let name = claim.get("name");
        if name.text().is_empty() {
            out.push(name.required(""));
        } else if !claims.contains(&name.text()) {
            out.push(crate::object::status::FieldError::not_found(name.path(), name.text()));
        }
    }
}

/// The pod's own `resources`.
pub(super) fn pod_level(spec: &Field, out: &mut Errors) {
    let field = spec.get("resources");
    if !field.is_set() {
        return;
    }
    if field.get("claims").is_set() {
        out.push(field.get("claims").forbidden("claims may not be set for Resources at pod-level"));
    }
    requirements(&field, pod_resource_name, out);
    let (requests, limits) = (field.get("requests"), field.get("limits"));
    let (sums, _) = totals(spec.value());
    for (name, amount) in requests.entries() {
        let own = validate::quantity(amount.value());
        if let (Some(sum), Some(own)) = (sums.get(name), own)
            && *sum > own
        {
            out.push(amount.invalid_as(
                own.to_string(),
                format!("must be greater than or equal to aggregate container requests of {sum}"),
            ));
        }
    }
    for list in ["containers", "initContainers"] {
        let list = spec.get(list);
        for container in list.items() {
            let resources = container.get("resources");
            let own = resources.get("limits");
            for (name, amount) in own.entries() {
                let limit = validate::quantity(limits.key(name).value());
                let amount_is = validate::quantity(amount.value());
                if let (Some(limit), Some(is)) = (limit, amount_is)
                    && is > limit
                {
                    out.push(own.invalid_as(
                        is.to_string(),
                        format!("must be less than or equal to pod limits of {limit}"),
                    ));
                }
            }
        }
    }
}

/// Limits for `overhead`, given as the map itself.
pub(super) fn overhead(field: &Field, out: &mut Errors) {
    let limits = field.named("limits", field.value());
    for (name, amount) in limits.entries() {
        container_resource_name(name, &amount, out);
        validate::resource_amount(name, &amount, out);
    }
}

fn requirements(field: &Field, check_name: fn(&str, &Field, &mut Errors), out: &mut Errors) {
    let (limits, requests) = (field.get("limits"), field.get("requests"));
    for (name, amount) in limits.entries() {
        check_name(name, &amount, out);
        validate::resource_amount(name, &amount, out);
        huge_page_amount(name, &amount, out);
    }
    for (name, amount) in requests.entries() {
        check_name(name, &amount, out);
        validate::resource_amount(name, &amount, out);
        request_within_limit(name, &amount, &requests, &limits, out);
        huge_page_amount(name, &amount, out);
    }
    let names = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    let huge = names().any(|name| name.starts_with(HUGE_PAGES));
    if huge && !names().any(|name| matches!(name, "cpu" | "memory")) {
        out.push(field.forbidden("HugePages require cpu or memory"));
    }
}

fn request_within_limit(
    name: &str,
    amount: &Field,
    requests: &Field,
    limits: &Field,
    out: &mut Errors,
) {
    let limit = limits.key(name);
    if !limit.is_set() {
        if !may_overcommit(name) {
            out.push(limits.required("Limit must be set for non overcommitable resources"));
        }
        return;
    }
    let pair = (validate::quantity(amount.value()), validate::quantity(limit.value()));
    let (Some(amount), Some(limit)) = pair else { return };
    let relation = if amount != limit && !may_overcommit(name) {
        "equal to"
    } else if amount > limit {
        "less than or equal to"
    } else {
        return;
    };
    let detail = format!("must be {relation} {name} limit of {limit}");
    out.push(requests.invalid_as(amount.to_string(), detail));
}

fn huge_page_amount(name: &str, field: &Field, out: &mut Errors) {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else { return };
    let pair = (Quantity::parse(size).ok(), validate::quantity(field.value()));
    let (Some(size), Some(amount)) = pair else { return };
    let (size, units) = (size.units(), amount.units());
    if size <= 0 || units < 0 || units % size != 0 {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        out.push(field.invalid_as(amount.to_string(), detail));
    }
}

/// A resource's name; without a domain it must be one of Kubernetes' own.
pub(in super::super) fn resource_name(name: &str, field: &Field, out: &mut Errors) -> bool {
    let faults = names::qualified_name(name);
    let good = faults.is_empty();
    for fault in faults {
        out.push(field.invalid_as(name, fault));
    }
    if good && !name.contains('/') && !is_standard(name) {
        out.push(field.invalid_as(name, "must be a standard resource type or fully qualified"));
        return false;
    }
    good
}

fn is_standard(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
        || name.starts_with("requests.hugepages-")
        || matches!(
            name,
            "cpu"
                | "memory"
                | "ephemeral-storage"
                | "requests.cpu"
                | "requests.memory"
                | "requests.ephemeral-storage"
                | "limits.cpu"
                | "limits.memory"
                | "limits.ephemeral-storage"
                | "pods"
                | "resourcequotas"
                | "services"
                | "replicationcontrollers"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "storage"
                | "requests.storage"
                | "services.nodeports"
                | "services.loadbalancers"
        )
}

fn container_resource_name(name: &str, field: &Field, out: &mut Errors) {
    resource_name(name, field, out);
    if !name.contains('/') {
        let known = matches!(name, "cpu" | "memory" | "ephemeral-storage");
        if !known && !name.starts_with(HUGE_PAGES) {
            out.push(field.invalid_as(name, "must be a standard resource for containers"));
        }
    } else if !validate::is_native_resource(name) && !validate::is_extended_resource(name) {
        out.push(field.invalid_as(name, "doesn't follow extended resource name standard"));
    }
}

fn pod_resource_name(name: &str, field: &Field, out: &mut Errors) {
    if resource_name(name, field, out) && !is_pod_level(name) {
        let allowed = ["cpu", "hugepages-", "memory"];
        let path = field.path();
        out.push(crate::object::status::FieldError::not_supported(path, name, &allowed));
    }
}

type Amounts = BTreeMap<String, Quantity>;

/// What all containers together ask for, and their limits: init containers run one by one, so the
/// greatest of them counts beside the sum of the others; restartable ones run on.
fn totals(spec: &Value) -> (Amounts, Amounts) {
    (total(spec, "requests"), total(spec, "limits"))
}

fn total(spec: &Value, which: &str) -> Amounts {
    let amounts = |container: &Value| -> Vec<(String, Quantity)> {
        let map = container.get("resources").and_then(|resources| resources.get(which));
        map.and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), validate::quantity(value)?)))
            .collect()
    };
    let list = |name: &str| spec.get(name).and_then(Value::as_array).into_iter().flatten();
    let add = |sum: &mut Amounts, name: String, amount: Quantity| {
        let entry = sum.entry(name).or_insert(Quantity::ZERO);
        *entry = entry.plus(&amount);
    };
    let mut sum = Amounts::new();
    for container in list("containers") {
        amounts(container).into_iter().for_each(|(name, amount)| add(&mut sum, name, amount));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let restarts = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        for (name, amount) in amounts(container) {
            let running = sidecars.get(&name).copied().unwrap_or(Quantity::ZERO);
            if restarts {
                add(&mut sum, name.clone(), amount);
                add(&mut sidecars, name.clone(), amount);
            }
            let now = running.plus(&amount);
            let entry = peak.entry(name).or_insert(now);
            *entry = (*entry).max(now);
        }
    }
    for (name, amount) in peak {
        let entry = sum.entry(name).or_insert(amount);
        *entry = (*entry).max(amount);
    }
    sum
}

/// Pod-level requests follow from what containers ask for, and else from pod-level limits.
pub(super) fn default_pod_level(spec: &mut Map) {
    if !spec.get("resources").is_some_and(Value::is_object) {
        return;
    }
    let whole = Value::Object(spec.clone());
    let (asked, limited) = totals(&whole);
    let Some(resources) = map_mut(spec, "resources") else { return };
    let empty = |map: Option<&Value>| map.and_then(Value::as_object).is_none_or(Map::is_empty);
    if empty(resources.get("limits")) && empty(resources.get("requests")) {
        return;
    }
    let requests = resources.get("requests").cloned().unwrap_or_default();
    for (name, amount) in &limited {
        if name.starts_with(HUGE_PAGES)
            && requests.get(name).is_none()
            && let Some(limits) = map_mut(resources, "limits")
        {
            limits.entry(name.clone()).or_insert_with(|| amount.to_string().into());
        }
    }
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let Some(requests) = map_mut(resources, "requests") else { return };
    for (name, amount) in asked {
        if is_pod_level(&name) && may_overcommit(&name) {
            requests.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
    for (name, amount) in limits {
        if is_pod_level(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// Guaranteed, Burstable or BestEffort.
pub(in super::super) fn quality_of_service(spec: &Value) -> &'static str {
    let owners: Vec<&Value> = match spec.get("resources") {
        Some(_) => vec![spec],
        None => ["containers", "initContainers"]
            .into_iter()
            .filter_map(|list| spec.get(list)?.as_array())
            .flatten()
            .collect(),
    };
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    for owner in owners {
        add_compute(owner, "requests", &mut requests);
        let found = add_compute(owner, "limits", &mut limits);
        guaranteed &= found == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    if guaranteed && requests == limits { "Guaranteed" } else { "Burstable" }
}

/// Adds an owner's cpu and memory above zero to `sum`; gives how many it had.
fn add_compute(owner: &Value, which: &str, sum: &mut Amounts) -> usize {
    let map = owner.get("resources").and_then(|resources| resources.get(which));
    let mut found = 0;
    for name in POD_LEVEL {
        let amount = map.and_then(|map| validate::quantity(map.get(*name)?));
        if let Some(amount) = amount.filter(|amount| *amount > Quantity::ZERO) {
            found += 1;
            let entry = sum.entry((*name).to_owned()).or_insert(Quantity::ZERO);
            *entry = entry.plus(&amount);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(resources: Value) -> &'static str {
        quality_of_service(&json!({"containers": [{"resources": resources}]}))
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({"requests": all, "limits": all})), "Guaranteed");
        assert_eq!(class(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"storage": "1"}})), "BestEffort");
    }

    #[test]
    fn requests_must_stay_below_limits() {
        let object = json!({"resources": {
            "limits": {"cpu": "1", "x": "1"}, "requests": {"cpu": "2", "a.b/c": "1"},
        }});
        let (root, mut out) = (Field::root(&object), Errors::new());
        container(&root.get("resources"), &[], &mut out);
        let texts: Vec<String> = out.iter().map(ToString::to_string).collect();
        for text in [
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit \
             of 1",
            "resources.limits[x]: Invalid value: \"x\": must be a standard resource type or \
             fully qualified",
            "resources.limits: Required value: Limit must be set for non overcommitable resources",
        ] {
            assert!(texts.iter().any(|found| found == text), "{text}: {texts:#?}");
        }
    }
}
