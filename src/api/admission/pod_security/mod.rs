//! PodSecurity: pods keep to the standard that their namespace's labels name.
//!
//! Pods are refused, workloads are only warned about: a Deployment may well be written before the
//! namespace's policy or its template is final.

mod checks;
mod policy;

use std::collections::BTreeMap;

use async_trait::async_trait;

use self::checks::Pod;
use self::policy::{Policy, Standard, details, evaluate, is_stricter};
use super::{Operation, Plugin, Request, list};
use crate::api::objects::SharedObjects;
use crate::object::status::Result;
use crate::object::{Status, Value, meta};

/// Pods of a namespace that are looked at when its policy becomes stricter.
const PODS_CHECKED_MAX: usize = 3000;

/// Subresources of pods that change no pod spec.
const IGNORED: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// (group, resource, path of the pod template) of workloads.
const WORKLOADS: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// The plug-in.
pub(super) struct PodSecurity {
    objects: SharedObjects,
}

impl PodSecurity {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn policy(&self, namespace: &str) -> Policy {
        let object = self.objects.get("namespaces", "", "", namespace);
        policy::read(object.as_deref().and_then(meta::labels)).0
    }

    /// Warnings about pods that run already, when a namespace's policy becomes stricter.
    fn warn_of_existing(&self, namespace: &str, standard: Standard) -> Vec<String> {
        let pods = self.objects.list("pods", "", namespace);
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(PODS_CHECKED_MAX) {
            let refused = evaluate(standard, &view(pod));
            if refused.is_empty() {
                continue;
            }
            let reasons: Vec<&str> = refused.iter().map(|one| one.reason.as_str()).collect();
            let first =
                found.entry(reasons.join(", ")).or_insert_with(|| (meta::name(pod).to_owned(), 0));
            first.1 += 1;
        }
        let mut warnings = Vec::new();
        if pods.len() > PODS_CHECKED_MAX {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} \
                 of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            let standard = standard.to_string();
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce \
                 level {standard:?}"
            ));
        }
        let mut texts: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                count => format!("{name} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        texts.sort();
        warnings.extend(texts);
        warnings
    }
}

fn view(pod: &Value) -> Pod<'_> {
    Pod { annotations: meta::annotations(pod), spec: pod.get("spec").unwrap_or(&Value::Null) }
}

/// The pod or pod template that a write brings.
fn pod_of(request: &Request) -> Option<(&Value, bool)> {
    let gvr = request.attributes.gvr.as_ref()?;
    let object = request.object.as_ref()?;
    let is_write = matches!(request.operation, Operation::Create | Operation::Update);
    if !is_write {
        return None;
    }
    let subresource = request.attributes.subresource.as_str();
    if gvr.group.is_empty() && gvr.resource == "pods" {
        return (!IGNORED.contains(&subresource)).then_some((object, true));
    }
    let workload = WORKLOADS
        .iter()
        .find(|(group, resource, _)| *group == gvr.group && *resource == gvr.resource)?;
    let template = subresource.is_empty().then(|| meta::at(object, workload.2)).flatten()?;
    Some((template, false))
}

/// Whether an update of a pod changes what the standards look at: containers and their images.
fn is_significant(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, field: &str| -> Vec<(String, String)> {
        let text = |container: &Value, field: &str| meta::text(container, &[field]).to_owned();
        list(pod, &["spec", field])
            .iter()
            .map(|container| (text(container, "name"), text(container, "image")))
            .collect()
    };
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .any(|field| images(new, field) != images(old, field))
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    /// Warnings only; upstream gives them while it validates.
    async fn admit(&self, request: &mut Request) -> Result<()> {
        if request.is("", "namespaces") && request.operation == Operation::Update {
            let of = |object: &Value| policy::read(meta::labels(object)).0.enforce;
            if let (Some(new), Some(old)) = (&request.object, request.old.as_deref())
                && is_stricter(of(new), of(old))
            {
                let warnings = self.warn_of_existing(meta::name(new), of(new));
                request.warnings.extend(warnings);
            }
            return Ok(());
        }
        let Some((pod, is_pod)) = pod_of(request) else { return Ok(()) };
        let Policy { enforce, warn: standard } = self.policy(&request.attributes.namespace);
        // Who is about to be refused needs no warning of it.
        let is_doomed = is_pod && !evaluate(enforce, &view(pod)).is_empty();
        let refused = evaluate(standard, &view(pod));
        if !refused.is_empty() && !is_doomed {
            let (standard, details) = (standard.to_string(), details(&refused));
            let text = format!("would violate PodSecurity {standard:?}: {details}");
            request.warnings.push(text);
        }
        Ok(())
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        if request.is("", "namespaces") {
            return check_labels(request);
        }
        let Some((pod, true)) = pod_of(request) else { return Ok(()) };
        if request.old.as_deref().is_some_and(|old| !is_significant(pod, old)) {
            return Ok(());
        }
        let standard = self.policy(&request.attributes.namespace).enforce;
        let refused = evaluate(standard, &view(pod));
        if refused.is_empty() {
            return Ok(());
        }
        let standard = standard.to_string();
        let why = format!("violates PodSecurity {standard:?}: {}", details(&refused));
        Err(request.forbidden(why))
    }
}

/// A namespace's labels must be readable, unless they were not before either.
fn check_labels(request: &Request) -> Result<()> {
    let Some(new) = &request.object else { return Ok(()) };
    let (_, errors) = policy::read(meta::labels(new));
    let before = request.old.as_deref().map(|old| policy::read(meta::labels(old)).1);
    if errors.is_empty() || before.as_ref() == Some(&errors) {
        return Ok(());
    }
    Err(Status::invalid("", "Namespace", meta::name(new), &errors))
}

#[cfg(test)]
mod tests;
