//! An API server on loopback with a store in a temporary directory, and a plain client for it.
//!
//! Why a token is a user here: these tests are about the server's behaviour, not about who may.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use clusterd::api::authn::{Authenticator, Credentials};
use clusterd::api::authz::{Authorizer, Decision};
use clusterd::api::context::Attributes;
use clusterd::api::data::Data;
use clusterd::api::local::LocalClient;
use clusterd::api::pki;
use clusterd::api::resources;
use clusterd::api::server::{self, Api, Listener, Parts};
use clusterd::client::User;
use clusterd::object::Value;
use clusterd::object::status::Result;
use clusterd::stdx::clock::SystemClock;
use clusterd::stdx::tasks::Tasks;
use clusterd::store::{Config, Store};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;

/// A token is a user's name; the user "nobody" may nothing.
struct ByToken;

#[async_trait]
impl Authenticator for ByToken {
    async fn authenticate(&self, shown: &Credentials) -> Result<Option<User>> {
        let user = |name: &String| User { name: name.clone(), ..User::default() };
        Ok(shown.bearer.as_ref().filter(|token| *token != "unknown").map(user))
    }
}

#[async_trait]
impl Authorizer for ByToken {
    async fn authorize(&self, what: &Attributes) -> Decision {
        match what.user.name.as_str() {
            "nobody" => Decision::NoOpinion(String::new()),
            _ => Decision::Allow(String::new()),
        }
    }
}

/// A running server.
pub struct Server {
    api: Arc<Api>,
    url: String,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body; null when it is no JSON.
    pub value: Value,
    /// The body.
    pub text: String,
}

impl Server {
    /// Starts a server with every kind and the namespace "default".
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let store = Store::open(Config::new(dir.path().join("store")), &tasks).await.unwrap();
        let parts = Parts {
            data: Data::new(store),
            kinds: resources::all(),
            virtuals: resources::VIRTUAL.to_vec(),
            authenticator: Arc::new(ByToken),
            authorizers: vec![Arc::new(ByToken)],
            admission: Vec::new(),
            create_only: HashMap::new(),
            post_only: HashMap::new(),
            documents: HashMap::new(),
            nodes: Some(Arc::new(super::node::Echo(tasks.clone()))),
            checks: Vec::new(),
            metrics: Vec::new(),
            clock: SystemClock::shared(),
            tasks: tasks.clone(),
        };
        let api = Api::new(parts);
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let identity = pki::Identity {
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        };
        let shown = Arc::new(pki::SwapCertificate::default());
        shown.set(&identity).unwrap();
        let tls = pki::server_config(shown, &[], &[b"h2", b"http/1.1"]).unwrap();
        let socket = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}", socket.local_addr().unwrap());
        server::serve(&api, Listener { socket, tls: Arc::new(tls) });
        let this = Self { api, url, tasks, _dir: dir };
        let namespace = json!({"metadata": {"name": "default"}});
        assert_eq!(this.post("/api/v1/namespaces", namespace).await.code, 201);
        this
    }

    /// Ends it, as SIGTERM does.
    pub async fn stop(self) {
        self.tasks.shutdown().await;
    }

    /// A client in the server's own process.
    pub fn local(&self, name: &str) -> LocalClient {
        let user = User { name: name.to_owned(), ..User::default() };
        LocalClient::new(self.api.clone(), user, "test")
    }

    /// kube's client as the user `token`.
    pub fn client(&self, token: &str) -> kube::Client {
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        if !token.is_empty() {
            config.auth_info.token = Some(token.to_owned().into());
        }
        kube::Client::try_from(config).unwrap()
    }

    /// Sends one request as `token` and leaves the body to the caller.
    pub async fn send(&self, token: &str, request: Request<Vec<u8>>) -> Response<Body> {
        self.client(token).send(request.map(Body::from)).await.unwrap()
    }

    /// Sends one request as "admin" with these headers.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.send("admin", request.body(body.into()).unwrap()).await).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &[JSON], body.to_string()).await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &[JSON], body.to_string()).await
    }

    /// PATCH of a content type.
    pub async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, &[("content-type", kind)], body.to_string()).await
    }

    /// DELETE with options.
    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.call(Method::DELETE, path, &[JSON], body).await
    }

    /// The first `count` events of a watch, as (type, object).
    pub async fn watch(&self, path: &str, count: usize) -> Vec<(String, Value)> {
        self.follow(path).await.take(count).collect().await
    }

    /// The events of a watch.
    pub async fn follow(
        &self,
        path: &str,
    ) -> impl futures::Stream<Item = (String, Value)> + Unpin + use<> {
        let request = Request::builder().uri(path).body(Vec::new()).unwrap();
        let reply = self.send("admin", request).await;
        assert_eq!(reply.status(), 200, "{path}");
        let body = reply.into_body().into_data_stream().boxed();
        let state = (body, Vec::<u8>::new());
        futures::stream::unfold(state, |(mut body, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let mut event: Value = serde_json::from_slice(&line).unwrap();
                    let kind = event["type"].as_str().unwrap().to_owned();
                    return Some(((kind, event["object"].take()), (body, buffer)));
                }
                buffer.extend_from_slice(&body.next().await?.unwrap());
            }
        })
        .boxed()
    }
}

/// The content type of most bodies.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// Reads an answer to its end.
pub async fn read(reply: Response<Body>) -> Answer {
    let (parts, body) = reply.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        code: parts.status,
        headers: parts.headers,
        value: serde_json::from_slice(&bytes).unwrap_or_default(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}
