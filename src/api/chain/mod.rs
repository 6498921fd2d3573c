//! What every request from the network passes, in this order:
//!
//! 1. an id, which is also the audit id;
//! 2. a net: a panic below becomes a 500 and a line in the log; every answer is counted
//!    ([`figures`]);
//! 3. the reading of method, path and query ([`super::router`]);
//! 4. identity ([`identity`]): certificate or token, else anonymous, else 401;
//! 5. impersonation ([`impersonate`]), itself authorized;
//! 6. a seat ([`seats`]), unless the request is long-running;
//! 7. authorization ([`authorize`](mod@authorize));
//! 8. a deadline, unless the request is long-running;
//! 9. the handler of the verb ([`super::handlers`]).
//!
//! Why one function that calls them in a row: the order is the security of the server, so it must
//! be readable in one place.

pub mod authorize;
pub mod figures;
pub mod identity;
pub mod impersonate;
pub mod seats;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderValue, Request, StatusCode, header};
use rustls::pki_types::CertificateDer;

use super::body::{self, Body, Reply};
use super::context::{Attributes, RequestContext};
use super::handlers;
use super::query::Query;
use super::router::{self, Route};
use super::server::Api;
use crate::object::status::{Result, Status};
use crate::stdx::ids;
use crate::stdx::limits::REQUEST_TIMEOUT;

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other end.
    pub address: Option<IpAddr>,
    /// The certificates it showed, leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// A request on its way to a handler.
pub struct Incoming {
    /// Method, path and headers.
    pub parts: http::request::Parts,
    /// The body, not read yet.
    pub body: Body,
    /// The query.
    pub query: Query,
    /// What the path says.
    pub route: Route,
    /// Who, what, where.
    pub attributes: Attributes,
    /// The request.
    pub context: RequestContext,
}

/// Answers one request.
pub async fn handle(api: Arc<Api>, peer: Arc<Peer>, request: Request<Body>) -> Reply {
    let id = ids::uid();
    let line = format!("{} {}", request.method(), request.uri().path());
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let named = query.selected_name();
    let path = request.uri().path();
    let route = router::route(request.method(), path, query.flag("watch"), named.as_deref());
    let long = is_long_running(&route, &query);
    let asked = Asked { query, route: route.clone(), long };
    let start = api.clock.monotonic();
    let answer = AssertUnwindSafe(answer(&api, &peer, request, asked, &id)).catch_unwind().await;
    let mut reply = match answer {
        Ok(Ok(reply)) => reply,
        Ok(Err(status)) => body::failure(&status),
        Err(_) => {
            tracing::error!(request = %id, %line, "a handler panicked");
            let text = "This request caused apiserver to panic. Look in the logs for details.\n";
            body::reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
        }
    };
    let took = (!long).then(|| api.clock.monotonic().saturating_sub(start));
    let known = route.gvr.as_ref().is_some_and(|gvr| api.is_served(gvr));
    api.figures.count(&route, known, reply.status().as_u16(), took);
    let headers = reply.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("audit-id", id);
    }
    let cache = HeaderValue::from_static("no-cache, private");
    headers.entry(header::CACHE_CONTROL).or_insert(cache);
    reply
}

/// What the request line says.
struct Asked {
    query: Query,
    route: Route,
    long: bool,
}

async fn answer(
    api: &Arc<Api>,
    peer: &Peer,
    request: Request<Body>,
    asked: Asked,
    id: &str,
) -> Result<Reply> {
    let Asked { query, route, long } = asked;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let user = identity::identify(api, peer, &parts.headers, path).await?;
    let user = impersonate::impersonate(api, user, &parts.headers).await?;

    let reads = matches!(route.verb.as_str(), "get" | "list" | "watch");
    let seat = if long { None } else { Some(api.seats.take(reads)?) };

    let selector =
        |name| if reads || route.verb == "deletecollection" { query.get(name) } else { "" };
    let attributes = Attributes {
        user: Arc::new(user),
        verb: route.verb.clone(),
        gvr: route.gvr.clone(),
        subresource: route.subresource.clone(),
        namespace: route.namespace.clone(),
        name: route.name.clone(),
        path: path.to_owned(),
        field_selector: selector("fieldSelector").to_owned(),
        label_selector: selector("labelSelector").to_owned(),
    };
    authorize::authorize(api, &attributes).await?;

    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let context = RequestContext {
        id: id.to_owned(),
        source: peer.address,
        user_agent: agent.unwrap_or("").to_owned(),
    };
    let limit = deadline(&query)?;
    let incoming = Incoming { parts, body, query, route, attributes, context };
    let handled = handlers::handle(api, incoming);
    let reply = if long {
        handled.await
    } else {
        let late = || {
            let text = "request did not complete within the allotted timeout";
            Status::timeout(format!("Timeout: {text}"))
        };
        tokio::time::timeout(limit, handled).await.unwrap_or_else(|_| Err(late()))
    };
    drop(seat);
    reply
}

/// Requests that last as long as their client wants.
fn is_long_running(route: &Route, query: &Query) -> bool {
    match route.subresource.as_str() {
        "" => route.verb == "watch",
        "log" => query.flag("follow"),
        "exec" | "attach" | "portforward" | "proxy" => true,
        _ => false,
    }
}

/// The client's own `timeout`, at most ours.
fn deadline(query: &Query) -> Result<Duration> {
    match query.get("timeout") {
        "" => Ok(REQUEST_TIMEOUT),
        text => match go_duration(text) {
            Some(Duration::ZERO) => Ok(REQUEST_TIMEOUT),
            Some(wanted) => Ok(wanted.min(REQUEST_TIMEOUT)),
            None => Err(Status::bad_request("invalid timeout specified in the request URL")),
        },
    }
}

/// Go's `time.ParseDuration` for what clients send: a number and a unit, perhaps several.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0.0);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_deadline_is_heard_up_to_ours() {
        let read = |text: &str| deadline(&Query::parse(text));
        assert_eq!(read("timeout=1m30s").unwrap(), REQUEST_TIMEOUT);
        assert_eq!(read("timeout=1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(read("").unwrap(), REQUEST_TIMEOUT);
        assert_eq!(read("timeout=soon").unwrap_err().code, 400);
        assert_eq!(read("timeout=s").unwrap_err().code, 400);
    }
}
