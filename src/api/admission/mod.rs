//! Admission: plug-ins that may change a write, then plug-ins that may only refuse it.
//!
//! Why an ordered list: what one plug-in fills in the next one checks; the order is upstream's
//! (`kubeapiserver/options/plugins.go`).

mod certificates;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage_class;
mod toleration_seconds;

use std::sync::Arc;

use async_trait::async_trait;

use super::authz::Authorizer;
use super::authz::rbac::Rbac;
use super::authz::rbac::escalation::Escalation;
use super::context::Attributes;
use super::objects::SharedObjects;
use crate::object::status::Result;
use crate::object::{Gvk, Gvr, Status, Value, meta};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object, or a POST to a subresource.
    Create,
    /// A change.
    Update,
    /// An end.
    Delete,
    /// exec, attach, port-forward, proxy.
    Connect,
}

/// A write on its way to the store.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who, what, where.
    pub attributes: Attributes,
    /// What the write does.
    pub operation: Operation,
    /// The kind of `object`.
    pub gvk: Gvk,
    /// The new object (`None` for deletes); mutating plug-ins change it.
    pub object: Option<Value>,
    /// The stored object (`None` for creates).
    pub old: Option<Arc<Value>>,
    /// The name it will be stored under (after generateName).
    pub name: String,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl Request {
    /// Whether the request is for this resource itself, not for a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.is_sub(group, resource, "")
    }

    /// Whether the request is for this subresource.
    pub fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        let gvr = self.attributes.gvr.as_ref();
        gvr.is_some_and(|gvr| gvr.group == group && gvr.resource == resource)
            && self.attributes.subresource == subresource
    }

    /// 403 in upstream's words (`admission.NewForbidden`).
    pub fn forbidden(&self, why: impl AsRef<str>) -> Status {
        let nowhere = Gvr::new("", "", "");
        let gvr = self.attributes.gvr.as_ref().unwrap_or(&nowhere);
        let own = self.object.as_ref().map_or("", |object| meta::name(object));
        let name = [self.name.as_str(), self.attributes.name.as_str(), own]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("Unknown");
        Status::forbidden(gvr, name, why.as_ref())
    }
}

/// The plug-ins in upstream's order (`AllOrderedPlugins`, what is on by default), and last what
/// upstream checks in the storage of roles and bindings.
pub fn plugins(
    objects: &SharedObjects,
    authorizer: &Arc<dyn Authorizer>,
    rbac: &Arc<Rbac>,
) -> Vec<Arc<dyn Plugin>> {
    let objects = || objects.clone();
    vec![
        Arc::new(namespace_lifecycle::NamespaceLifecycle::new(objects())),
        Arc::new(limit_ranger::LimitRanger::new(objects())),
        Arc::new(service_account::ServiceAccount::new(objects())),
        Arc::new(node_restriction::NodeRestriction::new(objects(), authorizer.clone())),
        Arc::new(node_taint::TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity::new(objects())),
        Arc::new(priority::Priority::new(objects())),
        Arc::new(toleration_seconds::DefaultTolerationSeconds),
        Arc::new(storage_class::DefaultStorageClass::new(objects())),
        Arc::new(runtime_class::RuntimeClass::new(objects())),
        Arc::new(certificates::CertificateApproval(authorizer.clone())),
        Arc::new(certificates::CertificateSigning(authorizer.clone())),
        Arc::new(certificates::CertificateSubjectRestriction),
        Arc::new(ingress_class::DefaultIngressClass::new(objects())),
        Arc::new(Escalation::new(rbac.clone(), authorizer.clone())),
    ]
}

/// The list at `path`, or nothing.
fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    meta::at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Appends to the list at `path`, which is made when it is missing.
fn push(object: &mut Value, path: &[&str], item: Value) {
    if let Some(place) = meta::at_mut(object, path) {
        match place {
            Value::Array(list) => list.push(item),
            Value::Null => *place = Value::Array(vec![item]),
            _ => {}
        }
    }
}

/// Of the objects that carry `annotation: "true"`, the newest; of equals the first by name
/// (upstream's rule for default classes).
fn default_class(classes: Vec<Arc<Value>>, annotation: &str) -> Option<Arc<Value>> {
    let is_default =
        |class: &Arc<Value>| meta::text(class, &["metadata", "annotations", annotation]) == "true";
    let created = |class: &Value| meta::text(class, &["metadata", "creationTimestamp"]).to_owned();
    classes.into_iter().filter(is_default).min_by(|one, two| {
        created(two).cmp(&created(one)).then_with(|| meta::name(one).cmp(meta::name(two)))
    })
}

/// One admission plug-in.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Upstream's name for it.
    fn name(&self) -> &'static str;
    /// May change `request.object`.
    async fn admit(&self, _request: &mut Request) -> Result<()> {
        Ok(())
    }
    /// May refuse.
    async fn validate(&self, _request: &Request) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;
    use crate::api::authz::tests::resource;

    /// A create of `object`.
    pub fn request(name: &str, group: &str, namespace: &str, object: Value) -> Request {
        let gvk = meta::gvk(&object).unwrap_or_else(|| Gvk::new(group, "v1", ""));
        Request {
            attributes: resource("create", group, name, "", namespace, ""),
            operation: Operation::Create,
            gvk,
            name: meta::name(&object).to_owned(),
            object: Some(object),
            old: None,
            dry_run: false,
            warnings: Vec::new(),
        }
    }

    /// An update of `old` to `object`.
    pub fn update(name: &str, group: &str, namespace: &str, object: Value, old: Value) -> Request {
        let mut request = request(name, group, namespace, object);
        request.operation = Operation::Update;
        request.attributes.verb = "update".to_owned();
        request.attributes.name = request.name.clone();
        request.old = Some(Arc::new(old));
        request
    }
}
