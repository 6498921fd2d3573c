//! NodeRestriction: a node writes its own Node, Lease and pods, and nothing that would give it
//! more.
//!
//! Why beside the Node authorizer: that one sees names; this one sees the object, so it can hold a
//! node to its own labels, to mirror pods and to tokens of the pods that run on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Operation, Plugin, Request, list};
use crate::api::authz::node::{NODE_PREFIX, Needs, node_of, references};
use crate::api::authz::{Authorizer, Decision};
use crate::api::context::Attributes;
use crate::api::objects::SharedObjects;
use crate::object::status::Result;
use crate::object::{Gvr, Status, Value, meta};

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels of Kubernetes' own that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The plug-in.
pub(super) struct NodeRestriction {
    objects: SharedObjects,
    authorizer: Arc<dyn Authorizer>,
}

/// The reason for a refusal, or a whole Status where upstream gives one.
enum Refusal {
    Why(String),
    Status(Status),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::Why(why.to_owned())
    }
}

type Check = std::result::Result<(), Refusal>;

fn refuse(why: impl Into<Refusal>) -> Check {
    Err(why.into())
}

impl NodeRestriction {
    pub(super) fn new(objects: SharedObjects, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { objects, authorizer }
    }

    async fn check(&self, node: &str, request: &Request) -> Check {
        let Some(gvr) = &request.attributes.gvr else { return Ok(()) };
        let subresource = request.attributes.subresource.as_str();
        match (gvr.group.as_str(), gvr.resource.as_str()) {
            ("", "pods") => match subresource {
                "" => self.pod(node, request),
                "status" => pod_status(node, request),
                "eviction" => self.eviction(node, request),
                other => refuse(format!(
                    "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
                )),
            },
            ("", "nodes") => own_node(node, request),
            ("", "persistentvolumeclaims") if subresource == "status" => {
                claim_status(node, request)
            }
            ("", "persistentvolumeclaims") => refuse("may only update PVC status"),
            ("", "serviceaccounts")
                if subresource == "token" && request.operation == Operation::Create =>
            {
                self.token(node, request).await
            }
            ("coordination.k8s.io", "leases") => lease(node, request),
            ("storage.k8s.io", "csinodes") if name_of(request) != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => slice(node, request),
            ("certificates.k8s.io", "certificatesigningrequests") => signing(node, request),
            _ => Ok(()),
        }
    }

    fn stored_pod(
        &self,
        request: &Request,
        name: &str,
    ) -> std::result::Result<Arc<Value>, Refusal> {
        let pod = self.objects.get("pods", "", &request.attributes.namespace, name);
        let missing = || Refusal::Status(Status::not_found(&Gvr::new("", "v1", "pods"), name));
        pod.ok_or_else(missing)
    }

    fn pod(&self, node: &str, request: &Request) -> Check {
        match request.operation {
            Operation::Create => self.new_pod(node, request),
            Operation::Delete => {
                let pod = self.stored_pod(request, name_of(request))?;
                if meta::text(&pod, &["spec", "nodeName"]) == node {
                    return Ok(());
                }
                refuse(format!(
                    "node {node:?} can only delete pods with spec.nodeName set to itself"
                ))
            }
            operation => refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                format!("{operation:?}").to_uppercase()
            )),
        }
    }

    fn new_pod(&self, node: &str, request: &Request) -> Check {
        let pod = request.object.as_ref().unwrap_or(&Value::Null);
        if !meta::annotations(pod).is_some_and(|all| all.contains_key(MIRROR)) {
            return refuse(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        let only = |what: &str| refuse(format!("node {node:?} can only create pods with {what}"));
        if meta::text(pod, &["spec", "nodeName"]) != node {
            return only("spec.nodeName set to itself");
        }
        let owner = match meta::owners(pod) {
            [] => return only("an owner reference set to itself"),
            [owner] => owner,
            _ => return only("a single owner reference set to itself"),
        };
        let text = |field: &str| meta::text(owner, &[field]);
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
            return only("an owner reference set to itself");
        }
        if owner.get("controller") != Some(&Value::Bool(true)) {
            return only("a controller owner reference set to itself");
        }
        if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
            return refuse(format!(
                "node {node:?} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let Some(stored) = self.objects.get("nodes", "", "", node) else {
            let gvr = Gvr::new("", "v1", "nodes");
            return Err(Refusal::Status(Status::not_found(&gvr, node)));
        };
        if text("uid") != meta::uid(&stored) {
            let (expected, got) = (text("uid"), meta::uid(&stored));
            return refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        match reference_of(pod) {
            Some(resource) => {
                refuse(format!("node {node:?} can not create pods that reference {resource}"))
            }
            None => Ok(()),
        }
    }

    fn eviction(&self, node: &str, request: &Request) -> Check {
        let own = request.object.as_ref().map_or("", |object| meta::name(object));
        let name = match request.attributes.name.as_str() {
            "" => own,
            name => name,
        };
        if name.is_empty() {
            return refuse("could not determine pod from request data");
        }
        let pod = self.stored_pod(request, name)?;
        if meta::text(&pod, &["spec", "nodeName"]) != node {
            return refuse(format!(
                "node {node} can only evict pods with spec.nodeName set to itself"
            ));
        }
        Ok(())
    }

    async fn token(&self, node: &str, request: &Request) -> Check {
        let body = request.object.as_ref().unwrap_or(&Value::Null);
        let text = |field: &str| meta::text(body, &["spec", "boundObjectRef", field]);
        if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        if text("uid").is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.stored_pod(request, text("name"))?;
        if meta::uid(&pod) != text("uid") {
            return refuse(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The \
                 object might have been deleted and then recreated",
                text("uid")
            ));
        }
        if meta::text(&pod, &["spec", "nodeName"]) != node {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(request, body, &pod).await
    }

    /// A node asks only for audiences that the pod itself names.
    async fn audience(&self, request: &Request, body: &Value, pod: &Value) -> Check {
        let audience = match list(body, &["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or(""),
            _ => return refuse("node may only request 0 or 1 audiences"),
        };
        if self.pod_names_audience(pod, audience) {
            return Ok(());
        }
        let what = Attributes {
            verb: "request-serviceaccounts-token-audience".to_owned(),
            gvr: Some(Gvr::new("", "v1", audience)),
            subresource: String::new(),
            ..request.attributes.clone()
        };
        if matches!(self.authorizer.authorize(&what).await, Decision::Allow(_)) {
            return Ok(());
        }
        let user = &request.attributes.user.name;
        refuse(format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to \
             request tokens for this audience"
        ))
    }

    fn pod_names_audience(&self, pod: &Value, audience: &str) -> bool {
        list(pod, &["spec", "volumes"]).iter().any(|volume| {
            let projected = list(volume, &["projected", "sources"]).iter().any(|source| {
                source.get("serviceAccountToken").is_some_and(|token| {
                    token.is_object() && meta::text(token, &["audience"]) == audience
                })
            });
            projected || self.driver_names_audience(pod, volume, audience)
        })
    }

    fn driver_names_audience(&self, pod: &Value, volume: &Value, audience: &str) -> bool {
        let own = meta::text(volume, &["csi", "driver"]).to_owned();
        let claim = match meta::text(volume, &["persistentVolumeClaim", "claimName"]) {
            "" if volume.get("ephemeral").is_some_and(Value::is_object) => {
                format!("{}-{}", meta::name(pod), meta::text(volume, &["name"]))
            }
            claim => claim.to_owned(),
        };
        let of_claim = || {
            let get = |resource: &str, namespace: &str, name: &str| {
                (!name.is_empty()).then(|| self.objects.get(resource, "", namespace, name))?
            };
            let claim = get("persistentvolumeclaims", meta::namespace(pod), &claim)?;
            let volume = get("persistentvolumes", "", meta::text(&claim, &["spec", "volumeName"]))?;
            Some(meta::text(&volume, &["spec", "csi", "driver"]).to_owned())
        };
        let driver = if own.is_empty() { of_claim().unwrap_or_default() } else { own };
        let driver = (!driver.is_empty())
            .then(|| self.objects.get("csidrivers", "storage.k8s.io", "", &driver))
            .flatten();
        driver.is_some_and(|driver| {
            list(&driver, &["spec", "tokenRequests"])
                .iter()
                .any(|asked| meta::text(asked, &["audience"]) == audience)
        })
    }
}

/// The name that a request is about: of the object in a create, of the path otherwise.
fn name_of(request: &Request) -> &str {
    match request.name.as_str() {
        "" => request.attributes.name.as_str(),
        name => name,
    }
}

/// The resource of an object that a pod refers to, if it refers to any.
fn reference_of(pod: &Value) -> Option<&'static str> {
    let projects_token = list(pod, &["spec", "volumes"])
        .iter()
        .flat_map(|volume| list(volume, &["projected", "sources"]))
        .any(|source| source.get("serviceAccountToken").is_some_and(Value::is_object));
    let needs: BTreeSet<&str> = references(pod)
        .into_iter()
        .map(|(needs, _)| match needs {
            Needs::ServiceAccount => "serviceaccounts",
            Needs::Secret => "secrets",
            Needs::ConfigMap => "configmaps",
            Needs::Claim => "persistentvolumeclaims",
            Needs::ResourceClaim => "resourceclaims",
        })
        .chain(projects_token.then_some("serviceaccounts"))
        .collect();
    needs.into_iter().next()
}

fn pod_status(node: &str, request: &Request) -> Check {
    let (Some(old), Some(new)) = (&request.old, &request.object) else {
        return refuse("unexpected operation");
    };
    if meta::text(old, &["spec", "nodeName"]) != node {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let differs = |path: &[&str]| meta::at(old, path) != meta::at(new, path);
    for (path, what) in [
        (["metadata", "labels"], "labels through pod status"),
        (["status", "resourceClaimStatuses"], "resource claim statues"),
        (["status", "extendedResourceClaimStatus"], "extended resource claim status"),
    ] {
        if differs(&path) {
            return refuse(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

fn claim_status(node: &str, request: &Request) -> Check {
    let (Some(old), Some(new)) = (&request.old, &request.object) else {
        return refuse("unexpected operation");
    };
    let rest = |object: &Value| {
        let mut object = object.clone();
        for path in [
            ["metadata", "resourceVersion"],
            ["metadata", "managedFields"],
            ["status", "capacity"],
            ["status", "conditions"],
            ["status", "allocatedResourceStatuses"],
            ["status", "allocatedResources"],
        ] {
            meta::remove(&mut object, &path);
        }
        object
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    refuse(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and \
         status.conditions"
    ))
}

fn own_node(node: &str, request: &Request) -> Check {
    let name = name_of(request);
    if name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = &request.object else { return Ok(()) };
    let differs = |path: &[&str]| {
        let old = request.old.as_deref().and_then(|old| meta::at(old, path));
        meta::at(new, path).filter(|value| !value.is_null()) != old
    };
    let source = ["spec", "configSource"];
    let has_source = meta::at(new, &source).is_some_and(|value| !value.is_null());
    match request.operation {
        Operation::Create if has_source => refuse(format!(
            "node {node:?} is not allowed to create pods with a non-nil configSource"
        )),
        Operation::Update if has_source && differs(&source) => refuse(format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        )),
        Operation::Update if differs(&["spec", "taints"]) => {
            refuse(format!("node {node:?} is not allowed to modify taints"))
        }
        Operation::Update if differs(&["metadata", "ownerReferences"]) => {
            refuse(format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        _ => {
            let labels = forbidden_labels(new, request.old.as_deref());
            if labels.is_empty() {
                return Ok(());
            }
            let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
            if request.operation == Operation::Create {
                return refuse(format!(
                    "node {node:?} is not allowed to set the following labels: {labels}"
                ));
            }
            refuse(format!("is not allowed to modify labels: {labels}"))
        }
    }
}

/// Changed labels that a node may not change on itself.
fn forbidden_labels(new: &Value, old: Option<&Value>) -> BTreeSet<String> {
    let none = crate::object::Map::new();
    let new = meta::labels(new).unwrap_or(&none);
    let old = old.and_then(meta::labels).unwrap_or(&none);
    let changed = new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key));
    changed.filter(|key| is_forbidden_label(key)).cloned().collect()
}

fn is_forbidden_label(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let within = |domain: &str| {
        namespace == domain
            || namespace.strip_suffix(domain).is_some_and(|head| head.ends_with('.'))
    };
    let is_own = OWN_LABELS.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io")
        || ((within("kubernetes.io") || within("k8s.io")) && !is_own)
}

fn lease(node: &str, request: &Request) -> Check {
    if request.attributes.namespace != LEASE_NAMESPACE {
        return refuse(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        ));
    }
    if name_of(request) != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn slice(node: &str, request: &Request) -> Check {
    let (object, verb) = match request.operation {
        Operation::Create => (request.object.as_ref(), "create"),
        Operation::Delete => (request.old.as_deref(), "delete"),
        _ => return Ok(()),
    };
    if object.is_some_and(|slice| meta::text(slice, &["spec", "nodeName"]) == node) {
        return Ok(());
    }
    refuse(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A node asks only for certificates in its own name.
fn signing(node: &str, request: &Request) -> Check {
    const SIGNERS: [&str; 2] =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let object = request.object.as_ref().unwrap_or(&Value::Null);
    let is_ours = SIGNERS.contains(&meta::text(object, &["spec", "signerName"]));
    if request.operation != Operation::Create || !is_ours {
        return Ok(());
    }
    let name = super::certificates::common_name(object)
        .map_err(|error| Refusal::Why(format!("unable to parse csr: {error}")))?;
    if name != format!("{NODE_PREFIX}{node}") {
        return refuse(format!("can only create a node CSR with CN={NODE_PREFIX}{node}"));
    }
    Ok(())
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        let user = request.attributes.user.clone();
        let Some(node) = node_of(&user) else { return Ok(()) };
        if request.operation == Operation::Connect {
            return Ok(());
        }
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", user.name);
            return Err(request.forbidden(why));
        }
        self.check(node, request).await.map_err(|refusal| match refusal {
            Refusal::Why(why) => request.forbidden(why),
            Refusal::Status(status) => status,
        })
    }
}

#[cfg(test)]
#[path = "node_restriction_tests.rs"]
mod tests;
