//! What of a Pod may change, and by which subresource.
//!
//! Why the old spec is put back before comparing: upstream tells the user what may change and shows
//! the rest as a diff.

use std::collections::HashMap;

use super::super::super::columns::list;
use super::super::super::diff::unified;
use super::super::super::field::{Errors, Field};
use super::super::super::{names, podspec, validate as checks};
use crate::object::{Value, meta};

const MIRROR: &str = "kubernetes.io/config.mirror";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
                         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                         existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
                         be set to 1 if it was previously negative)";
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];

/// A PUT or PATCH of the Pod itself.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut out = super::validate(new);
    annotations(new, old, &mut out);
    let (new_root, old_root) = (Field::root(new), Field::root(old));
    let (spec, old_spec) = (new_root.get("spec"), old_root.get("spec"));
    for name in CONTAINER_LISTS {
        if spec.get(name).len() != old_spec.get(name).len() {
            let why = "pod updates may not add or remove containers";
            out.push(spec.get(name).forbidden(why));
            return out;
        }
    }
    if !deadline(&spec, &old_spec, &mut out) {
        return out;
    }
    tolerations(&spec.get("tolerations"), &old_spec.get("tolerations"), &mut out);
    gates(&spec, &old_spec, &mut out);
    if checks::same(spec.value(), old_spec.value()) {
        return out;
    }
    let mut munged = spec.value().clone();
    put_back(&mut munged, &spec, &old_spec, &mut out);
    if !checks::same(&munged, old_spec.value()) {
        let diff = unified(old_spec.value(), &munged);
        out.push(spec.forbidden(format!(
            "pod updates may not change fields other than {UPDATABLE}\n{diff}"
        )));
    }
    out
}

/// `false` when nothing more need be said.
fn deadline(spec: &Field, old_spec: &Field, out: &mut Errors) -> bool {
    let (new, old) = (spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds"));
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            let max = i32::MAX;
            out.push(new.invalid(format!("must be between 0 and {max}, inclusive")));
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            out.push(new.invalid("must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            out.push(new.invalid("must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn tolerations(new: &Field, old: &Field, out: &mut Errors) {
    let without_seconds = |toleration: Field| {
        let mut value = toleration.value().clone();
        meta::remove(&mut value, &["tolerationSeconds"]);
        value
    };
    let kept: Vec<Value> = new.items().map(without_seconds).collect();
    if old.items().map(without_seconds).any(|old| !kept.iter().any(|new| checks::same(new, &old))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        out.push(new.forbidden(why));
    }
}

fn gates(spec: &Field, old_spec: &Field, out: &mut Errors) {
    let (new, old) = (spec.get("schedulingGates"), old_spec.get("schedulingGates"));
    for gate in new.items() {
        let name = gate.get("name");
        if !old.items().any(|old| old.get("name").text() == name.text()) {
            let text = name.text();
            out.push(name.forbidden(format!(
                "only deletion is allowed, but found new scheduling gate '{text}'"
            )));
        }
    }
}

/// Puts the old values of what may change into `munged`.
fn put_back(munged: &mut Value, spec: &Field, old_spec: &Field, out: &mut Errors) {
    let old = old_spec.value();
    for name in CONTAINER_LISTS {
        let images: Vec<Value> = list(old, &[name])
            .iter()
            .map(|container| container.get("image").cloned().unwrap_or_default())
            .collect();
        let containers = munged.get_mut(name).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            meta::set(container, &["image"], image);
        }
    }
    let mut restore = |name: &str| match old.get(name) {
        Some(value) => meta::set(munged, &[name], value.clone()),
        None => drop(meta::remove(munged, &[name])),
    };
    restore("activeDeadlineSeconds");
    restore("schedulingGates");
    restore("tolerations");
    let grace = "terminationGracePeriodSeconds";
    if old_spec.get(grace).int().is_some_and(|old| old < 0) && spec.get(grace).int() == Some(1) {
        restore(grace);
    }
    if old_spec.get("schedulingGates").is_empty() {
        return;
    }
    // A gated pod may still be pointed at fewer nodes.
    let (selector, old_selector) = (spec.get("nodeSelector"), old_spec.get("nodeSelector"));
    if old_selector.entries().any(|(key, value)| selector.key(key).text() != value.text()) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        out.push(selector.invalid(why));
    }
    restore("nodeSelector");
    node_affinity(spec, old_spec, out);
    match meta::at(old, &["affinity", "nodeAffinity"]) {
        Some(affinity) => meta::set(munged, &["affinity", "nodeAffinity"], affinity.clone()),
        None => drop(meta::remove(munged, &["affinity", "nodeAffinity"])),
    }
}

fn node_affinity(spec: &Field, old_spec: &Field, out: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let path = ["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    let (new, old) = (list(spec.value(), &path), list(old_spec.value(), &path));
    let (affinity, node) = (spec.get("affinity"), "nodeAffinity");
    let node = affinity.get(node);
    let required = node.get(REQUIRED);
    let terms = required.get("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        out.push(terms.invalid(why));
        return;
    }
    let only_added = |new: &Value, old: &Value| {
        let members = ["matchExpressions", "matchFields"];
        let was_empty = members.iter().all(|member| list(old, &[member]).is_empty());
        members.iter().all(|member| {
            let (new, old) = (list(new, &[member]), list(old, &[member]));
            new.starts_with(old) && (!was_empty || new.is_empty())
        })
    };
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        if !only_added(new, old) {
            let why = "only additions are allowed (no mutations or deletions)";
            out.push(terms.index(at).invalid(why));
        }
    }
}

/// Annotations that may not change once the pod is there.
fn annotations(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let metadata = root.get("metadata");
    let field = metadata.get("annotations");
    let before = meta::annotations(old);
    for (key, _) in before.into_iter().flatten() {
        if before.and_then(|before| before.get(key))
            == meta::annotations(new).and_then(|a| a.get(key))
        {
            continue;
        }
        if key.starts_with(APPARMOR) {
            out.push(field.key(key).forbidden("may not remove or update AppArmor annotations"));
        } else if key == MIRROR {
            let why = "may not remove or update mirror pod annotation";
            out.push(field.key(key).forbidden(why));
        }
    }
    for (key, added) in field.entries() {
        if before.is_some_and(|before| before.contains_key(key)) {
            continue;
        }
        if key.starts_with(APPARMOR) {
            out.push(added.forbidden("may not add AppArmor annotations"));
        } else if key == MIRROR {
            out.push(added.forbidden("may not add mirror pod annotation"));
        }
    }
}

/// Keeps of an update what `ephemeralcontainers` may write.
pub(super) fn keep_all_but_ephemeral(new: &mut Value, old: &Value) {
    let containers = meta::at(new, &["spec", "ephemeralContainers"]).cloned();
    meta::set(new, &["spec"], old.get("spec").cloned().unwrap_or_default());
    if let Some(containers) = containers {
        meta::set(new, &["spec", "ephemeralContainers"], containers);
    }
}

/// Ephemeral containers may be added, never changed or removed.
pub(super) fn validate_ephemeral(new: &Value, old: &Value) -> Errors {
    let mut out = super::validate(new);
    let root = Field::root(new);
    let spec = root.get("spec");
    let field = spec.get("ephemeralContainers");
    if meta::annotations(old).is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return vec![root.forbidden("static pods do not support ephemeral containers")];
    }
    for before in list(old, &["spec", "ephemeralContainers"]) {
        let name = meta::text(before, &["name"]);
        match field.items().find(|container| container.get("name").text() == name) {
            None => {
                out.push(field.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be removed\n"
                )))
            }
            Some(now) if !checks::same(now.value(), before) => {
                let diff = unified(before, now.value());
                out.push(field.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be changed\n{diff}"
                )));
            }
            Some(_) => {}
        }
    }
    out
}

/// Keeps of an update what `resize` may write, unless containers moved: validation tells of that.
pub(super) fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let names = |object: &Value, member: &str| -> Vec<String> {
        let containers = list(object, &["spec", member]).iter();
        containers.map(|container| meta::text(container, &["name"]).to_owned()).collect()
    };
    if CONTAINER_LISTS.iter().any(|member| names(new, member) != names(old, member)) {
        return;
    }
    let mut spec = old.get("spec").cloned().unwrap_or_default();
    for member in CONTAINER_LISTS {
        let wanted = list(new, &["spec", member]);
        let containers = spec.get_mut(member).and_then(Value::as_array_mut);
        for (container, wanted) in containers.into_iter().flatten().zip(wanted) {
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(value) => meta::set(container, &[field], value.clone()),
                    None => drop(meta::remove(container, &[field])),
                }
            }
        }
    }
    meta::set(new, &["spec"], spec);
}

/// Only cpu and memory may be resized, and not across a class of service.
pub(super) fn validate_resize(new: &Value, old: &Value) -> Errors {
    let mut out = super::validate(new);
    let root = Field::root(new);
    let spec = root.get("spec");
    if meta::annotations(old).is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return vec![root.forbidden("static pods cannot be resized")];
    }
    let class = |object: &Value| {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        podspec::resources::quality_of_service(spec)
    };
    if class(old) != class(new) {
        let shown = meta::text(new, &["status", "qosClass"]);
        out.push(spec.invalid_as(shown, "Pod QOS Class may not change as a result of resizing"));
    }
    // A node that can resize reports what it gave each running container.
    let running = list(old, &["status", "containerStatuses"]).iter();
    if running.into_iter().any(|status| {
        meta::at(status, &["state", "running"]).is_some() && status.get("resources").is_none()
    }) {
        out.push(spec.forbidden("Pod running on node without support for resize"));
    }
    for member in CONTAINER_LISTS {
        let (now, before) = (spec.get(member), list(old, &["spec", member]));
        if now.len() != before.len() {
            out.push(now.forbidden("containers may not be added or removed on resize"));
            return out;
        }
        for (container, before) in now.items().zip(before) {
            if container.get("name").text() != meta::text(before, &["name"]) {
                out.push(now.forbidden("containers may not be renamed or reordered on resize"));
                return out;
            }
            resized(&spec, &container, before, &mut out);
        }
    }
    out
}

fn resized(spec: &Field, container: &Field, before: &Value, out: &mut Errors) {
    let resources = container.get("resources");
    for which in ["requests", "limits"] {
        let now = resources.get(which);
        let before = meta::at(before, &["resources", which]).and_then(Value::as_object);
        let removed = before.is_some_and(|before| before.keys().any(|key| !now.key(key).is_set()));
        if removed {
            out.push(now.forbidden(format!("resource {which} cannot be removed")));
        }
    }
    let other_than_compute = |container: &Value| {
        let mut container = container.clone();
        for which in ["requests", "limits"] {
            for name in ["cpu", "memory"] {
                meta::remove(&mut container, &["resources", which, name]);
            }
        }
        meta::remove(&mut container, &["resizePolicy"]);
        container
    };
    if !checks::same(&other_than_compute(container.value()), &other_than_compute(before)) {
        out.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
}

/// A node may be late or old: what it leaves out of the status is kept.
pub(super) fn prepare_status(new: &mut Value, old: &Value) {
    meta::remove(new, &["metadata", "deletionTimestamp"]);
    if let Some(time) = meta::at(old, &["metadata", "deletionTimestamp"]) {
        meta::set(new, &["metadata", "deletionTimestamp"], time.clone());
    }
    match meta::at(old, &["metadata", "ownerReferences"]) {
        Some(owners) => meta::set(new, &["metadata", "ownerReferences"], owners.clone()),
        None => drop(meta::remove(new, &["metadata", "ownerReferences"])),
    }
    if meta::text(new, &["status", "qosClass"]).is_empty()
        && let Some(class) = meta::at(old, &["status", "qosClass"])
    {
        meta::set(new, &["status", "qosClass"], class.clone());
    }
    let observed = ["status", "observedGeneration"];
    if meta::at(new, &observed).and_then(Value::as_i64).unwrap_or(0) == 0
        && let Some(generation) = meta::at(old, &observed)
    {
        meta::set(new, &observed, generation.clone());
    }
    one_address_and_many(new);
    let mut before: HashMap<&str, Vec<&Value>> = HashMap::new();
    for condition in list(old, &["status", "conditions"]).iter().rev() {
        if let Some(generation) = condition.get("observedGeneration") {
            before.entry(meta::text(condition, &["type"])).or_default().push(generation);
        }
    }
    let conditions = meta::at_mut(new, &["status", "conditions"]).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let generation = before.get_mut(meta::text(condition, &["type"])).and_then(Vec::pop);
        let unset = condition.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0) == 0;
        if let (true, Some(generation)) = (unset, generation) {
            meta::set(condition, &["observedGeneration"], generation.clone());
        }
    }
    if list(new, &["status", "conditions"]).is_empty() {
        meta::remove(new, &["status", "conditions"]);
    }
}

/// `podIP` is the first of `podIPs`; a writer of one of them means both.
fn one_address_and_many(new: &mut Value) {
    let one = meta::text(new, &["status", "podIP"]).to_owned();
    let first =
        list(new, &["status", "podIPs"]).first().map(|ip| meta::text(ip, &["ip"]).to_owned());
    match first {
        Some(first) if one.is_empty() => meta::set(new, &["status", "podIP"], first),
        None if !one.is_empty() => {
            meta::set(new, &["status", "podIPs"], serde_json::json!([{ "ip": one }]));
        }
        _ => {}
    }
}

/// A status may not undo what is final.
pub(super) fn validate_status(new: &Value, old: &Value) -> Errors {
    let mut out = Errors::new();
    annotations(new, old, &mut out);
    let (new_root, old_root) = (Field::root(new), Field::root(old));
    let (status, old_status) = (new_root.get("status"), old_root.get("status"));
    let (nominated, was) = (status.get("nominatedNodeName"), old_status.get("nominatedNodeName"));
    if nominated.text() != was.text() && !nominated.text().is_empty() {
        checks::format(&nominated, names::dns_subdomain, &mut out);
        if !meta::text(old, &["spec", "nodeName"]).is_empty() {
            let why = "may not be set on pods that are already bound to a node";
            out.push(nominated.forbidden(why));
        }
    }
    let observed = status.get("observedGeneration");
    if observed.int().is_some_and(|generation| generation < 0) {
        out.push(observed.invalid("must be a non-negative integer"));
    }
    conditions(&status.get("conditions"), &mut out);
    checks::immutable(&status.get("qosClass"), &old_status.get("qosClass"), &mut out);
    ended_stay_ended(&status, &old_status, old, &mut out);
    for ips in ["podIPs", "hostIPs"] {
        let (ips, old_ips) = (status.get(ips), old_status.get(ips));
        for ip in ips.items() {
            let text = ip.get("ip").text().to_owned();
            if !old_ips.items().any(|old| old.get("ip").text() == text) {
                names::ip(&text).into_iter().for_each(|fault| {
                    out.push(ip.invalid_as(text.as_str(), fault));
                });
            }
        }
    }
    out
}

fn conditions(list: &Field, out: &mut Errors) {
    for condition in list.items() {
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|generation| generation < 0) {
            out.push(generation.invalid("must be a non-negative integer"));
        }
        let kind = condition.get("type");
        // Upstream writes this path with a capital.
        checks::format(&condition.named("Type", kind.value()), names::qualified_name, out);
    }
}

/// A container that has ended and is not restarted stays ended.
fn ended_stay_ended(status: &Field, old_status: &Field, pod: &Value, out: &mut Errors) {
    let policy = meta::text(pod, &["spec", "restartPolicy"]);
    let own_rules = list(pod, &["spec", "containers"])
        .iter()
        .any(|container| container.get("restartPolicy").is_some());
    if policy == "Always" || own_rules {
        return;
    }
    let statuses = status.get("containerStatuses");
    for (at, old) in old_status.get("containerStatuses").items().enumerate() {
        let state = old.get("state");
        let ended = state.get("terminated");
        let failed = ended.get("exitCode").int().unwrap_or(0) != 0;
        if !ended.is_set() || (failed && policy == "OnFailure") {
            continue;
        }
        let name = old.get("name").text();
        let now = statuses.items().find(|now| now.get("name").text() == name);
        if now.is_some_and(|now| !now.get("state").get("terminated").is_set()) {
            let item = statuses.index(at);
            let why = "may not be transitioned to non-terminated state";
            out.push(item.get("state").forbidden(why));
        }
    }
}
