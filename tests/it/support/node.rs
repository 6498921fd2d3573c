//! A node that repeats what it is asked, and on a WebSocket what it is told.

use async_trait::async_trait;
use clusterd::client::node::{NodeBody, NodeStreams, full_body};
use clusterd::object::status::Result;
use clusterd::stdx::tasks::Tasks;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// See the module.
pub struct Echo(pub Tasks);

#[async_trait]
impl NodeStreams for Echo {
    async fn call(&self, node: &str, mut request: Request<NodeBody>) -> Result<Response<NodeBody>> {
        let headers = request.headers();
        let secret = headers.contains_key(header::AUTHORIZATION);
        let text = format!("{node} {} secret={secret}", request.uri());
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).cloned() else {
            return Ok(Response::new(full_body(text)));
        };
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().unwrap();
        self.0.spawn_once("echo", async move {
            let stream = TokioIo::new(upgrade.await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            socket.send(text.into()).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        });
        let reply = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
            .header(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io");
        Ok(reply.body(full_body("")).unwrap())
    }
}
