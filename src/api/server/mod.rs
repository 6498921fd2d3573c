//! The API server: what all requests share ([`Api`]), and the way in from the network.
//!
//! Why a plain struct of parts: `roles` builds the parts in their order and this layer knows none
//! of the others above it; a test builds the same struct with fewer of them.

mod listen;
mod plain;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;

pub use listen::{Listener, connection, serve};
pub use plain::{git_version, plain, version};

use super::admission::Plugin;
use super::authn::Authenticator;
use super::authz::Authorizer;
use super::chain::figures::Figures;
use super::chain::seats::Seats;
use super::context::{Attributes, RequestContext};
use super::data::Data;
use super::discovery::Discovery;
use super::hooks::{CreateOnly, PostOnly};
use super::kind::{Kind, Write};
use super::openapi::OpenApi;
use super::registry::Registry;
use super::resources::Virtual;
use crate::client::node::SharedNodeStreams;
use crate::object::Gvr;
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;

/// Says whether a part of the process is well, for `/readyz` and `/livez`.
#[async_trait]
pub trait Check: Send + Sync {
    /// Its name in the verbose answer.
    fn name(&self) -> &'static str;
    /// `Err` says what is wrong.
    async fn check(&self) -> Result<(), String>;
    /// Whether `/livez` asks it too: only what a restart would mend.
    fn for_liveness(&self) -> bool {
        false
    }
}

/// Gives a part of `/metrics`, in Prometheus' text form.
pub trait Metrics: Send + Sync {
    /// Appends its lines.
    fn write(&self, out: &mut String);
}

/// Bytes that a path outside of the API answers with, as they are.
#[derive(Clone, Debug)]
pub struct Document {
    /// The media type.
    pub content_type: &'static str,
    /// The content.
    pub bytes: bytes::Bytes,
}

/// What an API server is made of.
pub struct Parts {
    /// The objects.
    pub data: Data,
    /// The served kinds.
    pub kinds: Vec<Kind>,
    /// The resources without objects.
    pub virtuals: Vec<Virtual>,
    /// Who is it?
    pub authenticator: Arc<dyn Authenticator>,
    /// May they? Asked in this order.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Plug-ins in their order.
    pub admission: Vec<Arc<dyn Plugin>>,
    /// Kinds that are computed, by (group, resource).
    pub create_only: HashMap<(String, String), Arc<dyn CreateOnly>>,
    /// Subresources that are computed, by (group, resource, subresource).
    pub post_only: HashMap<(String, String, String), Arc<dyn PostOnly>>,
    /// Fixed answers, by path (OpenID discovery).
    pub documents: HashMap<String, Document>,
    /// The way to the nodes, for logs, exec and their kin.
    pub nodes: Option<SharedNodeStreams>,
    /// Health.
    pub checks: Vec<Arc<dyn Check>>,
    /// Figures.
    pub metrics: Vec<Arc<dyn Metrics>>,
    /// Time.
    pub clock: SharedClock,
    /// The supervisor.
    pub tasks: Tasks,
}

/// A running API server, shared by all its requests.
pub struct Api {
    /// The objects.
    pub data: Data,
    /// The served kinds; a request keeps what it began with.
    pub registry: ArcSwap<Registry>,
    /// Time.
    pub clock: SharedClock,
    /// The supervisor.
    pub tasks: Tasks,
    pub(super) virtuals: Vec<Virtual>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) authorizers: Vec<Arc<dyn Authorizer>>,
    pub(super) admission: Vec<Arc<dyn Plugin>>,
    pub(super) create_only: HashMap<(String, String), Arc<dyn CreateOnly>>,
    pub(super) post_only: HashMap<(String, String, String), Arc<dyn PostOnly>>,
    pub(super) documents: HashMap<String, Document>,
    pub(super) nodes: Option<SharedNodeStreams>,
    pub(super) checks: Vec<Arc<dyn Check>>,
    pub(super) metrics: Vec<Arc<dyn Metrics>>,
    pub(super) seats: Seats,
    pub(super) figures: Figures,
    pub(super) discovery: Discovery,
    pub(super) openapi: OpenApi,
    draining: AtomicBool,
}

impl Api {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            data: parts.data,
            registry: ArcSwap::from_pointee(Registry::new(parts.kinds)),
            clock: parts.clock,
            tasks: parts.tasks,
            virtuals: parts.virtuals,
            authenticator: parts.authenticator,
            authorizers: parts.authorizers,
            admission: parts.admission,
            create_only: parts.create_only,
            post_only: parts.post_only,
            documents: parts.documents,
            nodes: parts.nodes,
            checks: parts.checks,
            metrics: parts.metrics,
            seats: Seats::default(),
            figures: Figures::default(),
            discovery: Discovery::default(),
            openapi: OpenApi::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// From now on `/readyz` says no, so that clients go elsewhere before connections end.
    pub fn begin_shutdown(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the resource is served, stored or computed.
    pub(super) fn is_served(&self, gvr: &Gvr) -> bool {
        let computed = |one: &Virtual| {
            (one.gvk.0, one.gvk.1, one.resource) == (&*gvr.group, &*gvr.version, &*gvr.resource)
        };
        self.registry.load().resource(gvr).is_some() || self.virtuals.iter().any(computed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.tasks.stop_token().is_cancelled()
    }
}

/// An authorized request to one served kind.
pub struct Call {
    /// The server.
    pub api: Arc<Api>,
    /// The kind.
    pub kind: Arc<Kind>,
    /// Who, what, where.
    pub attributes: Attributes,
    /// The request.
    pub request: RequestContext,
    /// Warnings for the client, in order.
    pub warnings: parking_lot::Mutex<Vec<String>>,
}

impl Call {
    /// What a strategy may know.
    pub fn write(&self) -> Write<'_> {
        Write {
            kind: &self.kind,
            request: &self.request,
            user: &self.attributes.user,
            now: self.api.clock.now(),
            subresource: &self.attributes.subresource,
        }
    }

    /// Adds a warning, once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The key of the object in question.
    pub fn key(&self, name: &str) -> bytes::Bytes {
        let (resource, group) = &self.kind.storage;
        let namespace = if self.kind.namespaced { self.attributes.namespace.as_str() } else { "" };
        super::storage::key(resource, group, namespace, name)
    }

    /// The same request for another subresource or name (steps of one request, not a new one).
    pub fn again(&self, name: &str) -> Self {
        let mut attributes = self.attributes.clone();
        name.clone_into(&mut attributes.name);
        Self {
            api: self.api.clone(),
            kind: self.kind.clone(),
            attributes,
            request: self.request.clone(),
            warnings: parking_lot::Mutex::default(),
        }
    }
}
