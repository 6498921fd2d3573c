//! Admission: plug-ins that may change a write, then plug-ins that may only refuse it.
//!
//! Why an ordered list: what one plug-in fills in the next one checks; the order is upstream's
//! (`kubeapiserver/options/plugins.go`).

use std::sync::Arc;

use async_trait::async_trait;

use super::context::Attributes;
use crate::object::status::Result;
use crate::object::{Gvk, Value};

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
    use crate::object::meta;

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
