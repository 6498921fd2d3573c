//! `Client` over HTTPS, and the raw requests that `ctl` needs beside it (tables, upgrades).
//!
//! Why HTTP/1.1 with a pool: exec and logs upgrade their connection, and a handful of idle
//! connections serve everything else; each is used by one request at a time.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Access;
use super::{
    Client, DeleteOptions, List, ListOptions, PatchKind, Propagation, Target, Watch, WatchEvent,
    WriteOptions,
};
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};
use crate::stdx::tasks::Tasks;

/// Idle connections kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Largest answer that is read whole, in bytes; more is an error.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Largest event of a watch, in bytes; more ends the watch with an error.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An API server, reached over HTTPS as one user.
#[derive(Clone)]
pub struct Http {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    authority: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    bearer: Option<HeaderValue>,
    user_agent: HeaderValue,
    impersonate: HeaderMap,
    warned: Option<fn(&str)>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    tasks: Tasks,
}

fn local(error: impl std::fmt::Display) -> Status {
    Status::failure(503, "ServiceUnavailable", format!("Unable to connect to the server: {error}"))
}

impl Http {
    /// Prepares access; connects with the first request.
    pub fn new(access: &Access, user_agent: &str, tasks: Tasks) -> anyhow::Result<Self> {
        Self::with_warnings(access, user_agent, tasks, None)
    }

    /// The same; `warned` is told each warning of the server's.
    pub fn with_warnings(
        access: &Access,
        user_agent: &str,
        tasks: Tasks,
        warned: Option<fn(&str)>,
    ) -> anyhow::Result<Self> {
        let uri: Uri = access.server.parse()?;
        anyhow::ensure!(
            uri.scheme_str() == Some("https"),
            "the server's address must begin with https://, it is {:?}",
            access.server
        );
        let host = uri.host().unwrap_or("localhost").trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let name = access.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let bearer = access.token.as_ref().map(|token| {
            HeaderValue::from_str(&format!("Bearer {token}")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let mut impersonate = HeaderMap::new();
        for (name, value) in &access.impersonate {
            impersonate.append(name.parse::<header::HeaderName>()?, HeaderValue::from_str(value)?);
        }
        let inner = Inner {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            name: ServerName::try_from(name)?,
            tls: TlsConnector::from(Arc::new(tls_config(access)?)),
            bearer: bearer.transpose()?,
            user_agent: HeaderValue::from_str(user_agent)?,
            impersonate,
            warned,
            idle: Mutex::new(Vec::new()),
            host,
            port,
            tasks,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sends one request; the path carries its query. The caller reads the body.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        self.identify(request.headers_mut())?;
        tracing::debug!("{} {}", request.method(), request.uri());
        let mut connection = self.connection().await?;
        let answer = connection.send_request(request).await.map_err(local)?;
        self.keep(connection);
        if let Some(warned) = self.inner.warned {
            warnings(answer.headers()).for_each(|text| warned(&text));
        }
        Ok(answer)
    }

    /// Says who asks.
    fn identify(&self, headers: &mut HeaderMap) -> Result<()> {
        let inner = &self.inner;
        headers.insert(header::HOST, HeaderValue::from_str(&inner.authority).map_err(local)?);
        headers.insert(header::USER_AGENT, inner.user_agent.clone());
        if let Some(bearer) = &inner.bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        for (name, value) in &inner.impersonate {
            headers.append(name, value.clone());
        }
        Ok(())
    }

    /// An idle connection, or a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        while let Some(mut connection) = self.idle() {
            // A connection that the server closed meanwhile is known only now.
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.inner.idle.lock();
        idle.retain(|connection| !connection.is_closed());
        let at = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(at))
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.inner.idle.lock();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let inner = &self.inner;
        let tcp = TcpStream::connect((inner.host.as_str(), inner.port)).await.map_err(local)?;
        tcp.set_nodelay(true).map_err(local)?;
        let tls = inner.tls.connect(inner.name.clone(), tcp).await.map_err(local)?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(local)?;
        inner.tasks.spawn_once("http connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("connection to the API server ended: {error}");
            }
        });
        Ok(sender)
    }

    /// Sends and reads the whole answer; anything but success becomes its Status.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let answer = self.send(request).await?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(local)?.to_bytes();
        if code.is_success() { Ok(bytes) } else { Err(failure(code.as_u16(), &bytes)) }
    }

    async fn value(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
        let bytes = match body {
            Some((content_type, value)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Bytes::from(serde_json::to_vec(value).map_err(Status::internal)?)
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(Status::internal)?;
        let bytes = self.call(request).await?;
        serde_json::from_slice(&bytes).map_err(Status::internal)
    }
}

fn tls_config(access: &Access) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &access.identity {
        Some((chain, key)) => {
            let chain =
                CertificateDer::pem_slice_iter(chain).collect::<std::result::Result<_, _>>();
            builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The texts of `Warning: 299 - "text"` headers.
fn warnings(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let all = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    let quoted = all.filter_map(|value| value.strip_prefix("299 ")?.split_once('"'));
    quoted.map(|(_, text)| {
        let text = text.trim_end();
        let text = text.strip_suffix('"').unwrap_or(text);
        text.replace("\\\"", "\"").replace("\\\\", "\\")
    })
}

/// The Status in a failed answer, or one made of its code.
pub fn failure(code: u16, body: &[u8]) -> Status {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.code != 0 => status,
        _ if code == 404 => Status::no_such_path(),
        _ => Status::failure(code, "", String::from_utf8_lossy(body).trim().to_owned()),
    }
}

/// The path of a target, without query.
pub fn path(target: &Target) -> String {
    let gvr = &target.gvr;
    let mut path = if gvr.group.is_empty() {
        format!("/api/{}", gvr.version)
    } else {
        format!("/apis/{}/{}", gvr.group, gvr.version)
    };
    if let Some(namespace) = &target.namespace {
        path.push_str("/namespaces/");
        path.push_str(&escape(namespace));
    }
    for part in [&gvr.resource, &target.name, &target.subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(&escape(part));
        }
    }
    path
}

/// Percent-encodes what may not stand in a path segment or a query value.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            escaped.push(byte as char);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A path with the parameters that have a value.
pub fn with_query(path: String, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", escape(value))).collect();
    if pairs.is_empty() { path } else { format!("{path}?{}", pairs.join("&")) }
}

/// The URL of a list or, with `watch`, of a watch.
pub fn list_path(target: &Target, options: &ListOptions, watch: bool) -> String {
    let number = |value: u64| if value == 0 { String::new() } else { value.to_string() };
    let flag = |value: bool| if value { "true" } else { "" };
    let parameters = [
        ("labelSelector", options.label_selector.as_str()),
        ("fieldSelector", &options.field_selector),
        ("resourceVersion", &options.resource_version),
        ("resourceVersionMatch", &options.resource_version_match),
        ("limit", &number(options.limit)),
        ("continue", &options.continue_token),
        ("timeoutSeconds", &number(options.timeout_seconds)),
        ("watch", flag(watch)),
        ("allowWatchBookmarks", flag(watch && options.allow_bookmarks)),
        ("sendInitialEvents", flag(watch && options.send_initial_events)),
    ];
    with_query(path(target), &parameters)
}

fn write_path(target: &Target, options: &WriteOptions) -> String {
    let parameters = [
        ("dryRun", if options.dry_run { "All" } else { "" }),
        ("fieldManager", options.field_manager.as_str()),
        ("force", if options.force { "true" } else { "" }),
        ("fieldValidation", &options.field_validation),
    ];
    with_query(path(target), &parameters)
}

/// The body that a delete sends.
pub fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        let name = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        body["propagationPolicy"] = name.into();
    }
    if let Some(uid) = &options.uid {
        meta::set(&mut body, &["preconditions", "uid"], uid.as_str());
    }
    if let Some(version) = &options.resource_version {
        meta::set(&mut body, &["preconditions", "resourceVersion"], version.as_str());
    }
    if options.dry_run {
        body["dryRun"] = serde_json::json!(["All"]);
    }
    body
}

const JSON: &str = "application/json";

#[async_trait]
impl Client for Http {
    async fn get(&self, target: &Target) -> Result<Value> {
        self.value(Method::GET, &path(target), None).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let list = self.value(Method::GET, &list_path(target, options, false), None).await?;
        let revision = meta::resource_version(&list).parse().unwrap_or(0);
        let token = meta::text(&list, &["metadata", "continue"]).to_owned();
        let items = list.get("items").and_then(Value::as_array);
        let items = items.into_iter().flatten().map(serde_json::to_vec);
        let items = items.map(|item| item.map(Bytes::from)).collect::<std::result::Result<_, _>>();
        Ok(List {
            resource_version: revision,
            continue_token: token,
            items: items.map_err(Status::internal)?,
        })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let request = Request::builder()
            .uri(list_path(target, options, true))
            .header(header::ACCEPT, JSON)
            .body(Full::default())
            .map_err(Status::internal)?;
        let lines = self.lines(request).await?;
        Ok(lines.map(|line| line.and_then(|line| event(&line))).boxed())
    }

    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        let mut path = write_path(target, options);
        // A subresource is posted to its object; an object to its collection.
        if target.subresource.is_empty() && !target.name.is_empty() {
            let collection = Target { name: String::new(), ..target.clone() };
            path = write_path(&collection, options);
        }
        self.value(Method::POST, &path, Some((JSON, &body))).await
    }

    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        self.value(Method::PUT, &write_path(target, options), Some((JSON, &body))).await
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchKind,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        let path = write_path(target, options);
        self.value(Method::PATCH, &path, Some((kind.content_type(), &body))).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Value> {
        self.value(Method::DELETE, &path(target), Some((JSON, &delete_body(options)))).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<()> {
        let path = list_path(target, which, false);
        self.value(Method::DELETE, &path, Some((JSON, &delete_body(options)))).await.map(drop)
    }
}

impl Http {
    /// Sends a request whose answer is one JSON text a line, without an end in sight.
    pub async fn lines(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<impl futures::Stream<Item = Result<Bytes>> + Send + 'static> {
        let answer = self.send(request).await?;
        let code = answer.status();
        if !code.is_success() {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let bytes = body.collect().await.map_err(local)?.to_bytes();
            return Err(failure(code.as_u16(), &bytes));
        }
        let state = (answer.into_body(), BytesMut::new());
        Ok(futures::stream::unfold(state, |(mut body, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line = buffer.split_to(end).freeze();
                    buffer.advance(1);
                    return Some((Ok(line), (body, buffer)));
                }
                if buffer.len() > EVENT_BYTES_MAX {
                    let error = Err(Status::too_large("an event of the watch is too large"));
                    buffer.clear();
                    return Some((error, (body, buffer)));
                }
                match body.frame().await? {
                    Ok(frame) => {
                        if let Some(data) = frame.data_ref() {
                            buffer.extend_from_slice(data);
                        }
                    }
                    Err(error) => return Some((Err(local(error)), (body, buffer))),
                }
            }
        }))
    }
}

fn event(line: &[u8]) -> Result<WatchEvent> {
    let mut event: Value = serde_json::from_slice(line).map_err(Status::internal)?;
    let object = event["object"].take();
    let bytes = || serde_json::to_vec(&object).map(Bytes::from).map_err(Status::internal);
    match meta::text(&event, &["type"]) {
        "ADDED" => Ok(WatchEvent::Added(bytes()?)),
        "MODIFIED" => Ok(WatchEvent::Modified(bytes()?)),
        "DELETED" => Ok(WatchEvent::Deleted(bytes()?)),
        "BOOKMARK" => {
            let end = ["metadata", "annotations", "k8s.io/initial-events-end"];
            Ok(WatchEvent::Bookmark {
                resource_version: meta::resource_version(&object).parse().unwrap_or(0),
                initial_events_end: meta::text(&object, &end) == "true",
            })
        }
        _ => Err(serde_json::from_value(object).unwrap_or_else(Status::internal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Gvr;

    #[test]
    fn paths_are_the_apis() {
        let pods = Gvr::new("", "v1", "pods");
        assert_eq!(path(&Target::all(&pods, "")), "/api/v1/pods");
        let log = Target::object(&pods, "a", "b").sub("log");
        assert_eq!(path(&log), "/api/v1/namespaces/a/pods/b/log");
        let options =
            ListOptions { label_selector: "a in (b,c)".into(), limit: 5, ..Default::default() };
        let deployments = Gvr::new("apps", "v1", "deployments");
        assert_eq!(
            list_path(&Target::all(&deployments, "x"), &options, true),
            "/apis/apps/v1/namespaces/x/deployments?labelSelector=a%20in%20%28b%2Cc%29&limit=5\
             &watch=true"
        );
    }

    #[test]
    fn warnings_are_read_as_they_were_quoted() {
        let mut headers = HeaderMap::new();
        headers.append(header::WARNING, HeaderValue::from_static(r#"299 - "a \"b\" c""#));
        headers.append(header::WARNING, HeaderValue::from_static("199 - \"other\""));
        assert_eq!(warnings(&headers).collect::<Vec<_>>(), ["a \"b\" c"]);
    }

    #[test]
    fn an_error_event_becomes_its_status() {
        let line = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert!(event(line).unwrap_err().is_expired());
    }
}
