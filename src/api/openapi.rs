//! `/openapi/v2` and `/openapi/v3`: what `kubectl explain`, validation and apply read.
//!
//! Why made when asked and kept compressed: the texts of a thousand fields weigh megabytes, and few
//! clients ask.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::body::{self, Reply};
use super::chain::Incoming;
use super::kind::Subresource;
use super::negotiate;
use super::registry::Registry;
use super::resources::Virtual;
use super::server::Api;
use crate::object::schema::openapi::{self, Resource};
use crate::object::status::{Result, Status};
use crate::object::{GroupVersion, Gvk, Value};

/// The documents of one registry, made when first asked for.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    of: Option<Arc<Registry>>,
    documents: HashMap<String, Bytes>,
}

/// The key of the v2 document among those of v3.
const V2: &str = "v2";

/// One line of a document's paths, with owned names.
struct Line {
    path: String,
    kind: Gvk,
    namespaced: bool,
    verbs: Vec<String>,
}

/// Answers what is an OpenAPI path; `None` for others.
pub fn answer(api: &Api, incoming: &Incoming) -> Option<Result<Reply>> {
    let path = incoming.parts.uri.path().trim_end_matches('/');
    let registry = api.registry.load_full();
    if path == "/openapi/v3" {
        return Some(Ok(body::json(StatusCode::OK, &index(api, &registry))));
    }
    let (name, hash) = if path == "/openapi/v2" {
        (V2, hash(api, &registry, None))
    } else {
        let name = path.strip_prefix("/openapi/v3/")?;
        let version = version_of(name).filter(|version| is_served(api, &registry, version));
        let Some(version) = version else { return Some(Err(Status::no_such_path())) };
        let hash = hash(api, &registry, Some(&version));
        if let Some(reply) = moved(incoming, name, &hash) {
            return Some(Ok(reply));
        }
        (name, hash)
    };
    if !accepts_json(&incoming.parts.headers) {
        return Some(Err(negotiate::not_acceptable(&[negotiate::Format::Json])));
    }
    Some(document(api, &registry, name, &hash, incoming))
}

/// "api/v1" or "apis/apps/v1".
fn version_of(name: &str) -> Option<GroupVersion> {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => Some(GroupVersion::new("", *version)),
        ["apis", group, version] => Some(GroupVersion::new(*group, *version)),
        _ => None,
    }
}

fn name_of(version: &GroupVersion) -> String {
    match version.group.as_str() {
        "" => format!("api/{}", version.version),
        group => format!("apis/{group}/{}", version.version),
    }
}

fn versions(api: &Api, registry: &Registry) -> Vec<GroupVersion> {
    let virtuals = api.virtuals.iter().map(|one| GroupVersion::new(one.gvk.0, one.gvk.1));
    let mut all: Vec<GroupVersion> = registry.versions().chain(virtuals).collect();
    all.sort();
    all.dedup();
    all
}

fn is_served(api: &Api, registry: &Registry, version: &GroupVersion) -> bool {
    versions(api, registry).contains(version)
}

fn index(api: &Api, registry: &Registry) -> Value {
    let paths = versions(api, registry).into_iter().map(|version| {
        let name = name_of(&version);
        let hash = hash(api, registry, Some(&version));
        let url = format!("/openapi/v3/{name}?hash={hash}");
        (name, json!({ "serverRelativeURL": url }))
    });
    json!({ "paths": paths.collect::<serde_json::Map<_, _>>() })
}

/// Changes with what is served and with the program, without making the document.
fn hash(api: &Api, registry: &Registry, version: Option<&GroupVersion>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(concat!(env!("CARGO_PKG_VERSION"), " 1.36 "));
    hasher.update(option_env!("CLUSTERD_COMMIT").unwrap_or(""));
    let mut add = |version: &GroupVersion| {
        for line in lines(api, registry, version) {
            hasher.update(format!("{version} {} {} {:?};", line.path, line.kind, line.verbs));
        }
    };
    match version {
        Some(version) => add(version),
        None => versions(api, registry).iter().for_each(add),
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A client that knows an old hash is sent to the new one.
fn moved(incoming: &Incoming, name: &str, hash: &str) -> Option<Reply> {
    let asked = incoming.query.get("hash");
    if asked.is_empty() || asked == hash {
        return None;
    }
    let mut reply = Reply::new(body::full(""));
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = format!("/openapi/v3/{name}?hash={hash}");
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&to).ok()?);
    Some(reply)
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let clauses = negotiate::clauses(headers);
    clauses.is_empty()
        || clauses.iter().any(|one| {
            matches!((one.kind, one.subtype), ("*" | "application", "*") | ("application", "json"))
        })
}

fn lines(api: &Api, registry: &Registry, version: &GroupVersion) -> Vec<Line> {
    let mut all = Vec::new();
    for kind in registry.in_version(&version.group, &version.version) {
        let line = |path: String, gvk: Gvk, verbs: Vec<String>| Line {
            path,
            kind: gvk,
            namespaced: kind.namespaced,
            verbs,
        };
        all.push(line(kind.resource.clone(), kind.gvk.clone(), kind.verbs.clone()));
        for one in &kind.subresources {
            let gvk = match one {
                Subresource::Status => kind.gvk.clone(),
                Subresource::Scale { .. } => super::handlers::scale::gvk(),
                Subresource::Special { body: (group, version, name), .. } => {
                    Gvk::new(*group, *version, *name)
                }
            };
            let verbs = one.verbs().iter().map(|verb| (*verb).to_owned()).collect();
            all.push(line(format!("{}/{}", kind.resource, one.name()), gvk, verbs));
        }
    }
    let virtuals = api.virtuals.iter();
    let here = |one: &&Virtual| (one.gvk.0, one.gvk.1) == (&version.group, &version.version);
    all.extend(virtuals.filter(here).map(|one| Line {
        path: one.resource.to_owned(),
        kind: Gvk::new(one.gvk.0, one.gvk.1, one.gvk.2),
        namespaced: one.namespaced,
        verbs: one.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
    }));
    all
}

fn with_resources<T>(lines: &[Line], make: impl FnOnce(&[Resource<'_>]) -> T) -> T {
    let verbs: Vec<Vec<&str>> =
        lines.iter().map(|line| line.verbs.iter().map(String::as_str).collect()).collect();
    let resources: Vec<Resource<'_>> = lines
        .iter()
        .zip(&verbs)
        .map(|(line, verbs)| Resource {
            path: &line.path,
            kind: &line.kind,
            namespaced: line.namespaced,
            verbs,
        })
        .collect();
    make(&resources)
}

fn make(api: &Api, registry: &Registry, name: &str) -> Value {
    let release = super::server::version();
    let release = release["gitVersion"].as_str().unwrap_or("");
    if let Some(version) = version_of(name) {
        let lines = lines(api, registry, &version);
        return with_resources(&lines, |served| {
            openapi::v3_document(&version.group, &version.version, release, served)
        });
    }
    let mut paths = serde_json::Map::new();
    for version in versions(api, registry) {
        let prefix = format!("/{}", name_of(&version));
        let lines = lines(api, registry, &version);
        let found = with_resources(&lines, |served| openapi::paths(&prefix, served));
        if let Value::Object(found) = found {
            paths.extend(found);
        }
    }
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": release},
        "paths": paths, "definitions": openapi::v2_definitions(),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header",
            "name": "authorization", "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}]})
}

fn document(
    api: &Api,
    registry: &Arc<Registry>,
    name: &str,
    hash: &str,
    incoming: &Incoming,
) -> Result<Reply> {
    let headers = &incoming.parts.headers;
    let etag = format!("\"{hash}\"");
    let known = headers.get(header::IF_NONE_MATCH);
    let mut reply = if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        let mut reply = Reply::new(body::full(""));
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        let zipped = zipped(api, registry, name)?;
        let asked = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        if asked.is_some_and(|text| text.contains("gzip")) {
            let mut reply = body::reply(StatusCode::OK, "application/json", zipped);
            let gzip = HeaderValue::from_static("gzip");
            reply.headers_mut().insert(header::CONTENT_ENCODING, gzip);
            reply
        } else {
            let mut plain = Vec::new();
            GzDecoder::new(&zipped[..]).read_to_end(&mut plain).map_err(Status::internal)?;
            body::reply(StatusCode::OK, "application/json", plain)
        }
    };
    let headers = reply.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    let cache = if incoming.query.get("hash") == hash { "public, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(reply)
}

fn zipped(api: &Api, registry: &Arc<Registry>, name: &str) -> Result<Bytes> {
    {
        let mut made = api.openapi.made.lock();
        if !made.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, registry)) {
            *made = Made { of: Some(registry.clone()), documents: HashMap::new() };
        }
        if let Some(found) = made.documents.get(name) {
            return Ok(found.clone());
        }
    }
    // Made without the lock: two clients at once make it twice, which harms nobody.
    let value = make(api, registry, name);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&body::to_bytes(&value)).map_err(Status::internal)?;
    let bytes = Bytes::from(encoder.finish().map_err(Status::internal)?);
    let mut made = api.openapi.made.lock();
    if made.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, registry)) {
        made.documents.insert(name.to_owned(), bytes.clone());
    }
    Ok(bytes)
}
