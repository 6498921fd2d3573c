//! The proxy to pods, services and nodes.
//!
//! Why by hand over one connection a request: an upgrade must take the connection with it, and a
//! pool would outlive the pods that it leads to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request as HttpRequest, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rand::Rng;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::Read;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::rewrite::{self, Place};
use super::streams::to_node;
use crate::api::admission::Operation;
use crate::api::body::{self, Body, Reply};
use crate::api::data;
use crate::api::handlers::admit::Admission;
use crate::api::handlers::{Request, get};
use crate::api::server::Call;
use crate::api::storage;
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};

/// How long a pod may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest page whose links are rewritten, in bytes; a larger one is a 502.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "proxy-connection",
];

/// Where a request goes.
struct Target {
    https: bool,
    at: SocketAddr,
}

/// Answers any method on `pods/proxy`, `services/proxy` and `nodes/proxy`.
pub async fn handle(call: &Call, request: &mut Request) -> Result<Reply> {
    let name = call.attributes.name.clone();
    Admission::new(call, Operation::Connect, &name, None, false).without_object().await?;
    if call.kind.resource == "nodes" {
        let (_, node, _) = split_id(&name, "node")?;
        data::decode(&get::get(&call.again(&node), "").await?)?;
        let path = behind(request, if request.rest.is_empty() { "/" } else { &request.rest });
        return to_node(call, request, &node, &path).await;
    }
    let reads = matches!(request.parts.method, http::Method::GET | http::Method::HEAD);
    if request.rest.is_empty() && reads {
        return Ok(redirect(request));
    }
    let target = match call.kind.resource.as_str() {
        "pods" => pod_target(call, &name).await?,
        _ => service_target(call, &name).await?,
    };
    forward(call, request, &target).await
}

fn behind(request: &Request, path: &str) -> String {
    match request.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A page at the root must have a path that ends with a slash, or its links go astray.
fn redirect(request: &Request) -> Reply {
    let to = behind(request, &format!("{}/", request.parts.uri.path()));
    let mut reply = Reply::new(body::full(""));
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(&to) {
        reply.headers_mut().insert(header::LOCATION, to);
    }
    reply
}

/// `[scheme:]name[:port]`.
fn split_id(id: &str, what: &str) -> Result<(bool, String, String)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => ("?", "", ""),
    };
    if name.is_empty() || !["", "http", "https"].contains(&scheme) {
        return Err(Status::bad_request(format!("invalid {what} request {id:?}")));
    }
    Ok((scheme == "https", name.to_owned(), port.to_owned()))
}

async fn pod_target(call: &Call, id: &str) -> Result<Target> {
    let (https, name, mut port) = split_id(id, "pod")?;
    let pod = data::decode(&get::get(&call.again(&name), "").await?)?;
    if port.is_empty() {
        let containers = meta::at(&pod, &["spec", "containers"]).and_then(Value::as_array);
        let first = containers
            .into_iter()
            .flatten()
            .filter_map(|one| one.get("ports")?.as_array()?.first()?.get("containerPort")?.as_u64())
            .next();
        port = first.unwrap_or(if https { 443 } else { 80 }).to_string();
    }
    let port =
        port.parse().map_err(|_| Status::bad_request(format!("invalid pod request {id:?}")))?;
    Ok(Target { https, at: SocketAddr::new(pod_ip(&pod)?, port) })
}

fn pod_ip(pod: &Value) -> Result<IpAddr> {
    let ip: Option<IpAddr> = meta::text(pod, &["status", "podIP"]).parse().ok();
    ip.filter(is_global_unicast).ok_or_else(|| Status::bad_request("address not allowed"))
}

/// Go's `IsGlobalUnicast`: the proxy must not reach the host's own loopback.
fn is_global_unicast(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || link_local)
}

async fn service_target(call: &Call, id: &str) -> Result<Target> {
    let (https, name, mut port) = split_id(id, "service")?;
    if let Ok(number) = port.parse::<u64>() {
        let service = data::decode(&get::get(&call.again(&name), "").await?)?;
        let ports = meta::at(&service, &["spec", "ports"]).and_then(Value::as_array);
        let found = ports.into_iter().flatten().find(|one| one["port"].as_u64() == Some(number));
        let found = found.ok_or_else(|| {
            let text = format!("no service port {number} found for service {name:?}");
            Status::unavailable(text)
        })?;
        meta::text(found, &["name"]).clone_into(&mut port);
    }
    let key = storage::key("endpoints", "", &call.attributes.namespace, &name);
    let view = call.api.data.fresh().await?;
    let none = |of: &str| Status::unavailable(format!("no endpoints available for service {of:?}"));
    let endpoints = data::decode(&view.get(&key).ok_or_else(|| none(&name))?.value)?;
    let mut found: Vec<SocketAddr> = Vec::new();
    let subsets = endpoints.get("subsets").and_then(Value::as_array);
    for subset in subsets.into_iter().flatten() {
        let list = |field: &str| subset.get(field).and_then(Value::as_array).into_iter().flatten();
        let Some(number) = list("ports")
            .find(|one| meta::text(one, &["name"]) == port)
            .and_then(|one| u16::try_from(one.get("port")?.as_u64()?).ok())
        else {
            continue;
        };
        for address in list("addresses") {
            let ip: Option<IpAddr> = meta::text(address, &["ip"]).parse().ok();
            if let Some(ip) = ip.filter(|_| is_pods(call, &view, address)) {
                found.push(SocketAddr::new(ip, number));
            }
        }
    }
    if found.is_empty() {
        return Err(none(id));
    }
    let at = found[rand::rng().random_range(0..found.len())];
    Ok(Target { https, at })
}

/// Only addresses that a pod really has are proxied to: endpoints may be written by users.
fn is_pods(call: &Call, view: &crate::store::View, address: &Value) -> bool {
    if meta::text(address, &["targetRef", "kind"]) != "Pod" {
        return false;
    }
    let namespace = match meta::text(address, &["targetRef", "namespace"]) {
        "" => call.attributes.namespace.as_str(),
        namespace => namespace,
    };
    let name = meta::text(address, &["targetRef", "name"]);
    let Some(entry) = view.get(&storage::key("pods", "", namespace, name)) else { return false };
    let Ok(pod) = data::decode(&entry.value) else { return false };
    let wanted = meta::text(address, &["ip"]);
    let ips = meta::at(&pod, &["status", "podIPs"]).and_then(Value::as_array);
    pod_ip(&pod).is_ok()
        && (meta::text(&pod, &["status", "podIP"]) == wanted
            || ips.into_iter().flatten().any(|one| meta::text(one, &["ip"]) == wanted))
}

async fn forward(call: &Call, request: &mut Request, target: &Target) -> Result<Reply> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::unavailable(format!("error trying to reach service: {error}"))
    };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target.at));
    let stream = match connecting.await {
        Ok(stream) => stream.map_err(|error| unreachable(&error))?,
        Err(late) => return Err(unreachable(&late)),
    };
    let client = request.parts.extensions.remove::<OnUpgrade>();
    let outgoing = outgoing(request, target)?;
    let answer = if target.https {
        let name = ServerName::from(target.at.ip());
        let connector = tokio_rustls::TlsConnector::from(any_server().map_err(Status::internal)?);
        let stream = connector.connect(name, stream).await.map_err(|e| unreachable(&e))?;
        send(call, stream, outgoing).await
    } else {
        send(call, stream, outgoing).await
    };
    let mut answer = answer.map_err(|error| unreachable(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = answer.extensions_mut().remove::<OnUpgrade>();
        if let (Some(client), Some(server)) = (client, server) {
            join(call, client, server);
        }
        return Ok(answer.map(|_| body::full("")));
    }
    let host = request.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let at = target.at.to_string();
    let path = request.parts.uri.path();
    let prefix = path.strip_suffix(request.rest.as_str()).unwrap_or(path);
    let place = Place { prefix, target: &at, host: host.unwrap_or("") };
    rewritten(answer, &place).await
}

/// The request as the pod sees it.
fn outgoing(request: &mut Request, target: &Target) -> Result<HttpRequest<Body>> {
    let body = request.body.take().unwrap_or_else(|| body::full(""));
    let path = behind(request, if request.rest.is_empty() { "/" } else { &request.rest });
    let mut outgoing = HttpRequest::new(body);
    *outgoing.method_mut() = request.parts.method.clone();
    *outgoing.uri_mut() = path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    let headers = outgoing.headers_mut();
    for (name, value) in &request.parts.headers {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    headers.remove(header::AUTHORIZATION);
    if !headers.contains_key(header::UPGRADE) {
        headers.remove(header::CONNECTION);
    }
    let host = headers.remove(header::HOST);
    let uri = request.parts.uri.path().to_owned();
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("host", &target.at.to_string());
    add("x-forwarded-uri", &uri);
    add("x-forwarded-proto", "https");
    if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
        add("x-forwarded-host", host);
    }
    Ok(outgoing)
}

async fn send(
    call: &Call,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: HttpRequest<Body>,
) -> std::result::Result<Reply, hyper::Error> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let (mut sender, connection) = handshake;
    call.api.tasks.spawn_once("api proxy connection", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("proxied connection: {error}");
        }
    });
    let answer = sender.send_request(request).await?;
    Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// Passes bytes both ways until one side ends.
fn join(call: &Call, client: OnUpgrade, server: OnUpgrade) {
    let stop = call.api.tasks.stop_token();
    call.api.tasks.spawn_once("api proxy stream", async move {
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        tokio::select! {
            end = tokio::io::copy_bidirectional(&mut client, &mut server) => {
                if let Err(error) = end {
                    tracing::debug!("proxied stream: {error}");
                }
            }
            () = stop.cancelled() => {}
        }
    });
}

async fn rewritten(answer: Reply, place: &Place<'_>) -> Result<Reply> {
    let (mut parts, body) = answer.into_parts();
    for name in HOP_BY_HOP.into_iter().chain(["connection"]) {
        parts.headers.remove(name);
    }
    let text = |name: HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    let location = text(header::LOCATION);
    if !location.is_empty() {
        if let Ok(to) = HeaderValue::from_str(&rewrite::address(place, &location)) {
            parts.headers.insert(header::LOCATION, to);
        }
        return Ok(Reply::from_parts(parts, body));
    }
    let kind = text(header::CONTENT_TYPE);
    let encoding = text(header::CONTENT_ENCODING);
    let is_page = kind.split(';').next().unwrap_or("").trim() == "text/html";
    if !is_page || !["", "gzip"].contains(&encoding.as_str()) {
        return Ok(Reply::from_parts(parts, body));
    }
    let bad = |what: String| Status::failure(502, "", what);
    let bytes = body::read(body, PAGE_BYTES_MAX).await.map_err(|status| bad(status.message))?;
    let mut plain = Vec::new();
    if encoding == "gzip" {
        let mut unzipped = GzDecoder::new(&bytes[..]).take(PAGE_BYTES_MAX as u64 + 1);
        unzipped.read_to_end(&mut plain).map_err(|error| bad(error.to_string()))?;
        if plain.len() > PAGE_BYTES_MAX {
            return Err(bad(format!("the page has more than {PAGE_BYTES_MAX} bytes")));
        }
    } else {
        plain.extend_from_slice(&bytes);
    }
    let page = match String::from_utf8(plain) {
        Ok(text) => rewrite::page(&text, place).into_bytes(),
        Err(other) => other.into_bytes(),
    };
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    Ok(Reply::from_parts(parts, body::full(page)))
}

/// A pod's certificate says nothing about who runs it: as upstream, it is not checked.
fn any_server() -> std::result::Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_scheme_name_and_port() {
        let read = |id: &str| split_id(id, "pod").ok();
        assert_eq!(read("a"), Some((false, "a".to_owned(), String::new())));
        assert_eq!(read("a:80"), Some((false, "a".to_owned(), "80".to_owned())));
        assert_eq!(read("https:a:x"), Some((true, "a".to_owned(), "x".to_owned())));
        assert_eq!(read("https:a:"), Some((true, "a".to_owned(), String::new())));
        assert_eq!(read("ftp:a:1"), None);
    }

    #[test]
    fn the_hosts_own_loopback_is_out_of_reach() {
        for (ip, open) in
            [("10.42.0.3", true), ("127.0.0.1", false), ("169.254.1.1", false), ("::1", false)]
        {
            assert_eq!(is_global_unicast(&ip.parse().unwrap()), open, "{ip}");
        }
    }
}
