//! The node's server: upstream's kubelet paths as one function from request to answer.
//!
//! Why a function and not a listener: on one machine the API server hands its request over in
//! process (upgrade included), across machines a connection does; both end here. The caller has
//! authorized the request.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::engine::ExecSpec;
use super::exec::{self, Protocol, Wiring};
use super::{SharedHost, logs, stats};
use crate::client::node::{NodeBody, NodeStreams, full_body};
use crate::object::status::{Result, Status};
use crate::reconcile::Object;
use std::sync::Arc;

/// A request's query, names with all their values.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: BTreeMap<String, Vec<String>>,
}

impl Query {
    /// Reads what stands behind the question mark.
    pub fn parse(text: &str) -> Self {
        let mut values = BTreeMap::<String, Vec<String>>::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(name)).or_default().push(decode(value));
        }
        Self { values }
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    /// All values of a name, in their order.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a switch is on.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

/// Percent-decoding, with `+` for a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// This node, for an API server in the same process.
pub struct LocalNode {
    host: SharedHost,
}

impl LocalNode {
    /// The way to `host`.
    pub fn new(host: SharedHost) -> Self {
        Self { host }
    }
}

#[async_trait]
impl NodeStreams for LocalNode {
    async fn call(&self, node: &str, request: Request<NodeBody>) -> Result<Response<NodeBody>> {
        if node != self.host.config.name {
            let message =
                format!("this process is the node {:?}, not {node:?}", self.host.config.name);
            return Err(Status::unavailable(message));
        }
        answer(&self.host, request).await
    }
}

/// Answers a request.
pub async fn answer(host: &SharedHost, request: Request<NodeBody>) -> Result<Response<NodeBody>> {
    let path: Vec<String> = request
        .uri()
        .path()
        .split('/')
        .skip(1)
        .map(|part| decode(&part.replace('+', "%2B")))
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    match path.as_slice() {
        ["healthz"] => Ok(text("text/plain", "ok")),
        ["containerLogs", namespace, pod, container] => {
            let pod = find(host, namespace, pod)?;
            show_log(host, request, &pod, container, &query).await
        }
        // Upstream's paths may carry the pod's uid before the container.
        ["exec", namespace, pod, .., container] => {
            let pod = find(host, namespace, pod)?;
            talk(host, request, &pod, container, &query, false).await
        }
        ["attach", namespace, pod, .., container] => {
            let pod = find(host, namespace, pod)?;
            talk(host, request, &pod, container, &query, true).await
        }
        ["portForward", ..] => {
            Err(Status::failure(501, "NotImplemented", "this node does not forward ports yet"))
        }
        ["pods"] => {
            let items: Vec<_> = host.pods.list("").iter().map(|pod| pod.to_value()).collect();
            let list =
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
            Ok(text("application/json", list.to_string()))
        }
        ["stats", "summary"] => {
            Ok(text("application/json", stats::summary(host).await.to_string()))
        }
        ["metrics", "resource"] => Ok(text(METRICS, stats::resource_metrics(host).await)),
        ["metrics"] => Ok(text(METRICS, stats::own_metrics(host))),
        _ => Err(Status::no_such_path()),
    }
}

/// The exposition format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn text(kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<NodeBody> {
    let mut response = Response::new(full_body(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn find(host: &SharedHost, namespace: &str, name: &str) -> Result<Arc<core::Pod>> {
    host.pods
        .get(namespace, name)
        .ok_or_else(|| Status::failure(404, "NotFound", format!("pod {name:?} does not exist")))
}

fn has_container(pod: &core::Pod, name: &str) -> bool {
    let model = super::pods::Model::new(Arc::new(pod.clone()));
    model.unit(name).is_some()
}

fn unknown_container(pod: &core::Pod, container: &str) -> Status {
    let message = format!("container {container:?} not found in pod {:?}", pod.name());
    Status::failure(404, "NotFound", message)
}

async fn show_log(
    host: &SharedHost,
    mut request: Request<NodeBody>,
    pod: &core::Pod,
    container: &str,
    query: &Query,
) -> Result<Response<NodeBody>> {
    if !has_container(pod, container) {
        return Err(unknown_container(pod, container));
    }
    let log = logs::stream(host, pod, container, query).await?;
    if !wants_socket(request.headers()) {
        return Ok(logs::response(log));
    }
    let offered = protocols(request.headers());
    let name = ["binary.k8s.io", "base64.binary.k8s.io"]
        .into_iter()
        .find(|name| offered.iter().any(|offer| offer == name))
        .unwrap_or("");
    let response = switch(request.headers(), name)?;
    let upgrade = hyper::upgrade::on(&mut request);
    host.tasks.spawn_once("log over websocket", async move {
        if let Ok(upgraded) = upgrade.await {
            let socket = exec::socket(upgraded).await;
            exec::send_log(socket, name == "base64.binary.k8s.io", log).await;
        }
    });
    Ok(response)
}

fn wants_socket(headers: &HeaderMap) -> bool {
    let value = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

fn protocols(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// The answer that turns a connection into a WebSocket.
fn switch(headers: &HeaderMap, protocol: &str) -> Result<Response<NodeBody>> {
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Status::bad_request("missing Sec-WebSocket-Key"));
    };
    let mut builder = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    if !protocol.is_empty() {
        builder = builder.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    builder.body(full_body("")).map_err(Status::internal)
}

/// exec and attach. The names of the query's switches are the API's or the kubelet's.
async fn talk(
    host: &SharedHost,
    mut request: Request<NodeBody>,
    pod: &core::Pod,
    container: &str,
    query: &Query,
    attach: bool,
) -> Result<Response<NodeBody>> {
    if !has_container(pod, container) {
        return Err(unknown_container(pod, container));
    }
    let on = |names: [&str; 2]| names.iter().any(|name| query.is_set(name));
    let tty = query.is_set("tty");
    let wiring = Wiring {
        stdin: on(["stdin", "input"]),
        stdout: on(["stdout", "output"]),
        stderr: on(["stderr", "error"]) && !tty,
        attach,
    };
    if !(wiring.stdin || wiring.stdout || wiring.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let command = query.all("command").to_vec();
    if !attach && command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let Some(id) = running_id(pod, container) else {
        let message = format!("container {container:?} of pod {:?} is not running", pod.name());
        return Err(Status::bad_request(message));
    };
    if !wants_socket(request.headers()) {
        let message = "Upgrade request required: this node speaks the WebSocket channel protocols \
                       (SPDY is not supported)";
        return Err(Status::bad_request(message));
    }
    let offered = protocols(request.headers());
    let Some(protocol) = Protocol::choose(offered.iter().map(String::as_str)) else {
        let message = format!("unable to negotiate a subprotocol of {offered:?}");
        return Err(Status::bad_request(message));
    };
    let response = switch(request.headers(), protocol.name())?;
    let upgrade = hyper::upgrade::on(&mut request);
    let own = host.clone();
    host.tasks.spawn_once(format!("session in {container}"), async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = exec::socket(upgraded).await;
        let session = match attach {
            true => own.engine.attach(&id, wiring.stdin).await,
            false => own.engine.exec(&id, &ExecSpec { command, tty, stdin: wiring.stdin }).await,
        };
        let session =
            session.map_err(|error| format!("error executing command in container: {error}"));
        exec::join(own, socket, protocol, wiring, session).await;
    });
    Ok(response)
}

fn running_id(pod: &core::Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == container)?;
    found.state.as_ref()?.running.as_ref()?;
    Some(found.container_id.as_deref()?.trim_start_matches("docker://").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_repeated_names_in_order() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%2Bb%26&stdin=1&tty=false");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a+b&"]);
        assert!(query.is_set("stdin") && !query.is_set("tty") && !query.is_set("none"));
    }
}
