//! What the node, the pod network and the API server need of one another, as traits.
//!
//! Why here: the node runtime and the network are siblings that never import each other, and the
//! API server sits below both. Each implements or calls a trait of this file; `roles` ties them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::object::status::Result;

/// One pod, told apart from a later one of the same name by its uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// The addresses of a pod; the first is `status.podIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAddresses {
    /// In the order of `status.podIPs`; never empty after an attach.
    pub ips: Vec<IpAddr>,
}

/// Gives pods an interface, an address and routes. The node calls it; `net` implements it.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects the network namespace at `netns` (as in `/proc/PID/ns/net`) for `pod`.
    ///
    /// It may be called again for the same uid, also after a restart of the process or with
    /// another namespace (a sandbox made anew): it then repairs what is missing, and an attached
    /// pod keeps its addresses as long as its namespace is the same.
    async fn attach(&self, pod: &PodRef, netns: &Path) -> anyhow::Result<PodAddresses>;

    /// Gives back everything that `uid` holds; no error when that is nothing. The namespace may be
    /// gone already.
    async fn detach(&self, uid: &str) -> anyhow::Result<()>;

    /// The uids that hold something, so that the node can detach those whose pod is gone.
    async fn list(&self) -> Vec<String>;
}

/// A shared pod network.
pub type SharedPodNetwork = Arc<dyn PodNetwork>;

/// The body of a request to a node, or of its answer (a log that is followed has no end).
pub type NodeBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A body of known bytes.
pub fn full_body(bytes: impl Into<Bytes>) -> NodeBody {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reaches the streaming server of a node (the kubelet's paths: `/containerLogs/NS/POD/CONTAINER`,
/// `/exec/NS/POD/CONTAINER`, `/attach/…`, `/portForward/NS/POD`, `/stats/summary`, `/metrics…`).
///
/// A request that upgrades (WebSocket) carries its `hyper::upgrade::OnUpgrade` in its extensions,
/// as hyper's server put it there. When the answer is `101 Switching Protocols`, the callee speaks
/// on that very stream: on the same machine no byte is copied twice, and the caller only passes the
/// answer on. A dialer to another machine joins both upgraded streams itself.
#[async_trait]
pub trait NodeStreams: Send + Sync + 'static {
    /// Sends `request` to the node `node`. The caller has authorized it already.
    async fn call(&self, node: &str, request: Request<NodeBody>) -> Result<Response<NodeBody>>;
}

/// A shared way to the nodes.
pub type SharedNodeStreams = Arc<dyn NodeStreams>;
