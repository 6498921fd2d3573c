//! The way from the API server to the nodes' streaming servers, filled in as nodes appear.
//!
//! Why late: the API server is built before the node that is its client; a node that is not here
//! (yet) is a clear 503 and no panic.

use std::collections::HashMap;

use async_trait::async_trait;
use http::{Request, Response};
use parking_lot::RwLock;

use crate::client::node::{NodeBody, NodeStreams, SharedNodeStreams};
use crate::object::status::{Result, Status};

/// Nodes by name.
#[derive(Default)]
pub struct Nodes {
    known: RwLock<HashMap<String, SharedNodeStreams>>,
}

impl Nodes {
    /// From now on `node` is reached this way.
    pub fn set(&self, node: &str, streams: SharedNodeStreams) {
        self.known.write().insert(node.to_owned(), streams);
    }
}

#[async_trait]
impl NodeStreams for Nodes {
    async fn call(&self, node: &str, request: Request<NodeBody>) -> Result<Response<NodeBody>> {
        let streams = self.known.read().get(node).cloned();
        match streams {
            Some(streams) => streams.call(node, request).await,
            None => Err(Status::unavailable(format!("node {node:?} is not connected"))),
        }
    }
}
