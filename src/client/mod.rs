//! The `Client` trait: the only way components reach objects, in process or over HTTP.
//!
//! Why a trait over untyped requests: a controller must not know whether it runs beside the API
//! server or a network away, and both ways pass the same authentication, authorization and
//! admission. `list` and `watch` hand out the server's very bytes; who wants types decodes once.

pub mod fake;
pub mod http;
pub mod kubeconfig;
pub mod node;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::object::status::Result;
use crate::object::{Gvr, Value};

/// Where an object, or a collection, is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The resource.
    pub gvr: Gvr,
    /// `None` for cluster-scoped resources and for lists over all namespaces.
    pub namespace: Option<String>,
    /// "" for a collection.
    pub name: String,
    /// "" for the object itself, or "status", "scale", "binding", …
    pub subresource: String,
}

impl Target {
    /// A collection; `namespace` may be "" for all or for none.
    pub fn all(gvr: &Gvr, namespace: &str) -> Self {
        Self::object(gvr, namespace, "")
    }

    /// One object; `namespace` may be "" for cluster-scoped ones.
    pub fn object(gvr: &Gvr, namespace: &str, name: &str) -> Self {
        Self {
            gvr: gvr.clone(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            name: name.to_owned(),
            subresource: String::new(),
        }
    }

    /// The same target's subresource.
    pub fn sub(mut self, subresource: &str) -> Self {
        self.subresource = subresource.to_owned();
        self
    }
}

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// As in a URL; "" for all.
    pub label_selector: String,
    /// As in a URL; "" for all.
    pub field_selector: String,
    /// "" (most recent), "0" (any) or a revision.
    pub resource_version: String,
    /// "", "Exact" or "NotOlderThan".
    pub resource_version_match: String,
    /// At most this many items a page; 0 for no limit.
    pub limit: u64,
    /// The token of the next page.
    pub continue_token: String,
    /// For watches: send the present state first, then a bookmark that says so.
    pub send_initial_events: bool,
    /// For watches: send bookmarks.
    pub allow_bookmarks: bool,
    /// For watches: end after this many seconds; 0 for the server's choice.
    pub timeout_seconds: u64,
}

/// What a write may carry.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Check everything, store nothing.
    pub dry_run: bool,
    /// Who writes, for managedFields.
    pub field_manager: String,
    /// For apply: take over fields of others.
    pub force: bool,
    /// "", "Ignore", "Warn" or "Strict".
    pub field_validation: String,
}

/// Which dependents a delete takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents are deleted afterwards.
    Background,
    /// Dependents are deleted first.
    Foreground,
    /// Dependents are left.
    Orphan,
}

/// What a delete asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds of grace; `None` for the object's own.
    pub grace_period_seconds: Option<i64>,
    /// The kind's default when `None`.
    pub propagation: Option<Propagation>,
    /// Only this object.
    pub uid: Option<String>,
    /// Only this version of it.
    pub resource_version: Option<String>,
    /// Check everything, delete nothing.
    pub dry_run: bool,
}

/// The kinds of patch, by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`.
    Apply,
}

impl PatchKind {
    /// The content type that names it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// A page of a list. The items are the stored bytes (canonical JSON, `resourceVersion` filled in).
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The revision that the whole list shows.
    pub resource_version: u64,
    /// "" on the last page.
    pub continue_token: String,
    /// The objects.
    pub items: Vec<Bytes>,
}

/// A change, as a watch reports it; objects are JSON bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// It came to be, or came to match.
    Added(Bytes),
    /// It changed.
    Modified(Bytes),
    /// It is gone, or ceased to match; this is its last state with the revision of its end.
    Deleted(Bytes),
    /// Nothing up to this revision is missing.
    Bookmark {
        /// The revision.
        resource_version: u64,
        /// The present state has been sent in full (`k8s.io/initial-events-end`).
        initial_events_end: bool,
    },
}

/// A running watch; it ends with an error (410 among them) or when the server's time is over.
pub type Watch = BoxStream<'static, Result<WatchEvent>>;

/// Access to objects as one user. Cheap to clone behind an `Arc`.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Reads one object or subresource.
    async fn get(&self, target: &Target) -> Result<Value>;
    /// Reads a page of a collection.
    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List>;
    /// Follows a collection.
    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch>;
    /// Creates an object, or posts to a subresource (binding, eviction, token).
    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value>;
    /// Replaces an object or subresource.
    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value>;
    /// Changes an object or subresource.
    async fn patch(
        &self,
        target: &Target,
        kind: PatchKind,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value>;
    /// Deletes an object; the answer is the object (still ending) or a Status.
    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Value>;
    /// Deletes all objects of a collection that match.
    async fn delete_collection(
        &self,
        target: &Target,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<()>;
}

/// A shared client.
pub type SharedClient = Arc<dyn Client>;

/// Who a request is made as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's name, as in "system:admin".
    pub name: String,
    /// A unique id, or "".
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// More, as in `authentication.kubernetes.io/credential-id`.
    pub extra: BTreeMap<String, Vec<String>>,
}
