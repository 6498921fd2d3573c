//! The small routes that are no resource: version, health, metrics. warp routes them.
//!
//! Why apart: they are text for people and probes, the same whatever the registry holds.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::json;
use tower::ServiceExt;
use warp::Filter;
use warp::filters::BoxedFilter;

use super::{Api, Document, Metrics};
use crate::api::body::Reply;
use crate::api::query::Query;
use crate::object::Value;

/// The minor version whose API and behaviour this is.
pub const MINOR: &str = "36";

/// Answers one of these routes, or 404.
pub async fn plain(api: &Arc<Api>, parts: http::request::Parts) -> Reply {
    let path = parts.uri.path().trim_end_matches('/');
    if let Some(found) = api.documents.get(path).filter(|_| parts.method == http::Method::GET) {
        return document(found).map(|body| body.map_err(|never| match never {}).boxed_unsync());
    }
    let request = http::Request::from_parts(parts, Empty::<Bytes>::new());
    let service = warp::service(routes(api.clone()));
    match service.oneshot(request).await {
        Ok(reply) => reply.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
        Err(never) => match never {},
    }
}

/// A fixed answer, which clients may keep for an hour.
fn document(found: &Document) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(found.bytes.clone()));
    let headers = reply.headers_mut();
    let kind = http::HeaderValue::from_static(found.content_type);
    headers.insert(http::header::CONTENT_TYPE, kind);
    let keep = http::HeaderValue::from_static("public, max-age=3600");
    headers.insert(http::header::CACHE_CONTROL, keep);
    reply
}

type Text = Response<Bytes>;

fn routes(api: Arc<Api>) -> BoxedFilter<(Text,)> {
    let state = warp::any().map(move || api.clone());
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let version = warp::path!("version").and(warp::get()).map(|| json(&version()));
    let health = warp::path::param::<String>()
        .and(warp::path::tail())
        .and(warp::get())
        .and(query)
        .and(state.clone())
        .and_then(health);
    let metrics = warp::path!("metrics").and(warp::get()).and(state.clone()).map(metrics);
    let index = |api: Arc<Api>| json(&paths(&api));
    let paths = warp::path::end().and(warp::get()).and(state).map(index);
    let nothing =
        warp::any().map(|| text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()));
    version.or(metrics).unify().or(paths).unify().or(health).unify().or(nothing).unify().boxed()
}

fn text(code: StatusCode, text: String) -> Text {
    let mut reply = Response::new(Bytes::from(text));
    *reply.status_mut() = code;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    let sniff = http::HeaderValue::from_static("nosniff");
    reply.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, sniff);
    reply
}

fn json(value: &Value) -> Text {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut reply = Response::new(Bytes::from(bytes));
    let kind = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// What clients compare themselves with.
pub fn git_version() -> String {
    format!("v1.{MINOR}.2+clusterd")
}

/// The answer of `/version`.
pub fn version() -> Value {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": MINOR,
        "emulationMajor": "1", "emulationMinor": MINOR,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": git_version(),
        "gitCommit": option_env!("CLUSTERD_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": platform,
    })
}

fn paths(api: &Api) -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for version in api.registry.load().versions() {
        paths.push(match version.group.as_str() {
            "" => format!("/api/{}", version.version),
            group => format!("/apis/{group}/{}", version.version),
        });
    }
    let rest =
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];
    paths.extend(rest.map(str::to_owned));
    paths.extend(api.documents.keys().cloned());
    paths.sort();
    json!({ "paths": paths })
}

fn metrics(api: Arc<Api>) -> Text {
    let mut out = String::new();
    Metrics::write(&api.figures, &mut out);
    for part in &api.metrics {
        part.write(&mut out);
    }
    let mut reply = text(StatusCode::OK, out);
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// `/healthz`, `/livez` and `/readyz`, whole, verbose, or one check of them.
async fn health(
    route: String,
    tail: warp::path::Tail,
    query: String,
    api: Arc<Api>,
) -> Result<Text, warp::Rejection> {
    let live = match route.as_str() {
        "livez" => true,
        "healthz" | "readyz" => false,
        _ => return Err(warp::reject::not_found()),
    };
    let query = Query::parse(&query);
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines: Vec<(String, Result<(), String>)> = vec![("ping".to_owned(), Ok(()))];
    for check in &api.checks {
        if !live || check.for_liveness() {
            lines.push((check.name().to_owned(), check.check().await));
        }
    }
    if route == "readyz" {
        let draining = api.is_draining();
        let state = if draining { Err("process is shutting down".to_owned()) } else { Ok(()) };
        lines.push(("shutdown".to_owned(), state));
    }
    let one = tail.as_str();
    if !one.is_empty() {
        let found = lines.into_iter().find(|(name, _)| name == one);
        return match found {
            Some((_, Ok(()))) => Ok(text(StatusCode::OK, "ok".to_owned())),
            Some((name, Err(why))) => {
                tracing::warn!("{route} check {name} failed: {why}");
                let shown = "internal server error: reason withheld\n".to_owned();
                Ok(text(StatusCode::INTERNAL_SERVER_ERROR, shown))
            }
            None => Err(warp::reject::not_found()),
        };
    }
    lines.retain(|(name, _)| !excluded.contains(&name.as_str()));
    Ok(summary(&route, &lines, query.has("verbose")))
}

fn summary(route: &str, lines: &[(String, Result<(), String>)], verbose: bool) -> Text {
    let mut all = String::new();
    let mut well = true;
    for (name, state) in lines {
        match state {
            Ok(()) => all.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                well = false;
                // The reason goes to the log: anybody may ask for health.
                tracing::warn!("{route} check {name} failed: {why}");
                all.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if !well {
        all.push_str(&format!("{route} check failed\n"));
        return text(StatusCode::INTERNAL_SERVER_ERROR, all);
    }
    if !verbose {
        return text(StatusCode::OK, "ok".to_owned());
    }
    all.push_str(&format!("{route} check passed\n"));
    text(StatusCode::OK, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_named_and_its_reason_is_not() {
        let lines =
            vec![("ping".to_owned(), Ok(())), ("store".to_owned(), Err("secret path".to_owned()))];
        let reply = summary("readyz", &lines, false);
        assert_eq!(reply.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = String::from_utf8(reply.into_body().to_vec()).unwrap();
        assert_eq!(body, "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n");
        assert_eq!(summary("livez", &lines[..1], false).into_body(), "ok");
    }
}
