//! The kubelet's server.
use super::SharedHost;
use crate::client::node::{NodeBody, NodeStreams};
use crate::object::status::{Result, Status};
/// Local.
pub struct LocalNode { host: SharedHost }
impl LocalNode {
    /// New.
    pub fn new(host: SharedHost) -> Self { Self { host } }
}
#[async_trait::async_trait]
impl NodeStreams for LocalNode {
    async fn call(&self, _node: &str, _request: http::Request<NodeBody>) -> Result<http::Response<NodeBody>> {
        let _ = &self.host;
        Err(Status::unavailable("not yet"))
    }
}
