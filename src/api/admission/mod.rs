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
