//! One file a verb; here: from an authorized HTTP request to its verb, and back to an answer.
//!
//! Why verbs take typed options and values: components in this process call the same functions
//! ([`super::local`]) without HTTP.

pub mod admit;
mod convert;
pub mod create;
pub mod delete;
pub mod deletecollection;
pub mod encode;
mod fields;
mod filter;
pub mod get;
pub mod list;
pub mod patch;
mod prepare;
pub mod scale;
pub mod update;
pub mod watch;
pub mod write;

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::body::{self, Body, Reply};
use super::chain::Incoming;
use super::kind::{Kind, Subresource};
use super::negotiate::{self, Format, Shape, Wish};
use super::query::Query;
use super::server::{Api, Call};
use super::{discovery, openapi, subresources, virtuals};
use crate::client::PatchKind;
use crate::object::schema::decode::{self, Validation};
use crate::object::schema::{self, Root};
use crate::object::status::{Result, Status};
use crate::object::{Gvk, Value};
use crate::stdx::limits::REQUEST_BODY_BYTES_MAX;

/// What objects can be written in.
const FORMATS: &[Format] = &[Format::Json, Format::Yaml, Format::Protobuf];

/// Answers an authorized request.
pub async fn handle(api: &Arc<Api>, incoming: Incoming) -> Result<Reply> {
    let Some(gvr) = &incoming.attributes.gvr else {
        if let Some(reply) = discovery::answer(api, &incoming) {
            return reply;
        }
        if let Some(reply) = openapi::answer(api, &incoming) {
            return reply;
        }
        return Ok(super::server::plain(api, incoming.parts).await);
    };
    let kind = api.registry.load().resource(gvr).cloned();
    let Some(kind) = kind else {
        return virtuals::handle(api, incoming).await;
    };
    let Incoming { parts, body, query, route, attributes, context } = incoming;
    let warnings = parking_lot::Mutex::default();
    let call = Call { api: api.clone(), kind, attributes, request: context, warnings };
    let mut request = Request { parts, body: Some(body), query, rest: route.rest };
    let mut reply = match dispatch(&call, &mut request).await {
        Ok(reply) => reply,
        Err(status) => body::failure(&status),
    };
    add_warnings(&mut reply, &call.warnings.into_inner());
    Ok(reply)
}

/// The HTTP side of a request to a served kind.
pub struct Request {
    /// Method, path and headers.
    pub parts: http::request::Parts,
    /// The body, until somebody reads it.
    pub body: Option<Body>,
    /// The query.
    pub query: Query,
    /// The path behind the subresource.
    pub rest: String,
}

async fn dispatch(call: &Call, request: &mut Request) -> Result<Reply> {
    let subresource = call.attributes.subresource.as_str();
    match (subresource, call.kind.subresource(subresource)) {
        ("", _) => {}
        (_, None) => return Err(Status::no_such_path()),
        (_, Some(found)) if !found.verbs().contains(&call.attributes.verb.as_str()) => {
            return Err(Status::method_not_supported(&call.kind.gvr(), &call.attributes.verb));
        }
        (_, Some(Subresource::Status)) => {}
        (_, Some(Subresource::Scale { .. })) => return scale::http(call, request).await,
        (_, Some(Subresource::Special { .. })) => {
            if let Some(reply) = subresources::handle(call, request).await {
                return reply;
            }
        }
    }
    verb(call, request).await
}

/// The verbs on an object or collection.
async fn verb(call: &Call, request: &mut Request) -> Result<Reply> {
    let verb = call.attributes.verb.as_str();
    let special = !call.attributes.subresource.is_empty();
    let allowed = special || call.kind.verbs.iter().any(|one| one == verb);
    let named = !call.attributes.name.is_empty();
    let fits = match verb {
        "create" => !named,
        "get" | "update" | "patch" | "delete" => named,
        _ => true,
    };
    if !allowed || !fits {
        return Err(Status::method_not_supported(&call.kind.gvr(), verb));
    }
    let wish = request.wish(FORMATS)?;
    match verb {
        "get" => {
            let bytes = get::get(call, request.query.get("resourceVersion")).await?;
            encode::object(call, &request.query, &wish, StatusCode::OK, bytes)
        }
        "list" => {
            let options = request.query.list()?;
            let page = list::list(call, &options).await?;
            encode::page(call, &request.query, &wish, page)
        }
        "watch" => watch_http(call, &request.query, &wish).await,
        "create" => {
            let options = request.query.write("CreateOptions")?;
            let body = request.object(call, &options.field_validation).await?;
            let written = create::create(call, body, &options).await?;
            encode::object(call, &request.query, &wish, StatusCode::CREATED, written.bytes)
        }
        "update" => {
            let options = request.query.write("UpdateOptions")?;
            let body = request.object(call, &options.field_validation).await?;
            let written = update::update(call, body, &options).await?;
            encode::written(call, &request.query, &wish, written)
        }
        "patch" => {
            let options = request.query.write("PatchOptions")?;
            let kind = patch_kind(request)?;
            let bytes = request.bytes().await?;
            let body = patch::read(call, kind, &bytes, &options)?;
            let written = patch::patch(call, kind, &body, &options).await?;
            encode::written(call, &request.query, &wish, written)
        }
        "delete" => {
            let body = request.delete_options().await?;
            let options = request.query.delete(body.as_ref())?;
            let deleted = delete::delete(call, &options).await?;
            encode::deleted(call, &request.query, &wish, deleted)
        }
        "deletecollection" => {
            let body = request.delete_options().await?;
            let options = request.query.delete(body.as_ref())?;
            let which = request.query.list()?;
            let page = deletecollection::delete(call, &options, &which).await?;
            encode::page(call, &request.query, &wish, page)
        }
        other => Err(Status::method_not_supported(&call.kind.gvr(), other)),
    }
}

async fn watch_http(call: &Call, query: &Query, wish: &Wish) -> Result<Reply> {
    let mut options = query.list()?;
    let explicit = query.has("sendInitialEvents");
    if explicit && !options.send_initial_events {
        // Asked for by name: no present state, only what happens from now on.
        if matches!(options.resource_version.as_str(), "" | "0") {
            options.resource_version = call.api.data.fresh().await?.revision().to_string();
        }
    }
    let events = match watch::watch(call, &options).await {
        Ok(events) => events,
        Err(status) if status.is_expired() => watch::refused(status),
        Err(status) => return Err(status),
    };
    encode::watch(call, query, wish, events)
}

fn patch_kind(request: &Request) -> Result<PatchKind> {
    let known = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
    let header = request.parts.headers.get(http::header::CONTENT_TYPE);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim();
    known
        .into_iter()
        .find(|kind| kind.content_type() == media)
        .ok_or_else(|| negotiate::unsupported(&known.map(PatchKind::content_type)))
}

impl Request {
    /// What the client accepts.
    pub fn wish(&self, formats: &[Format]) -> Result<Wish> {
        negotiate::accepted(&self.parts.headers, self.query.flag("pretty"), formats)
    }

    /// The whole body.
    pub async fn bytes(&mut self) -> Result<bytes::Bytes> {
        match self.body.take() {
            Some(body) => body::read(body, REQUEST_BODY_BYTES_MAX).await,
            None => Ok(bytes::Bytes::new()),
        }
    }

    /// The body as an object of the call's kind.
    pub async fn object(&mut self, call: &Call, validation: &str) -> Result<Value> {
        let gvk = call.kind.gvk.clone();
        self.object_of(call, &gvk, validation).await
    }

    /// The body as an object of `gvk`.
    pub async fn object_of(&mut self, call: &Call, gvk: &Gvk, validation: &str) -> Result<Value> {
        let format = negotiate::content(&self.parts.headers)?;
        let bytes = self.bytes().await?;
        let (value, warnings) = decode_body(&bytes, format, gvk, validation)?;
        for text in warnings {
            call.warn(text);
        }
        Ok(value)
    }

    /// The body as `DeleteOptions`, if there is one.
    pub async fn delete_options(&mut self) -> Result<Option<Value>> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let table = schema::builtin();
        let root = table.root_by_name("meta.v1.DeleteOptions");
        let value = match negotiate::content(&self.parts.headers)? {
            Format::Json => {
                without_kind(root, |root| decode::json(&bytes, root, Validation::Ignore))
            }
            Format::Yaml => {
                without_kind(root, |root| decode::yaml(&bytes, root, Validation::Ignore))
            }
            Format::Protobuf => decode::protobuf(&bytes, &|_| root).map(|(_, value)| value),
        };
        value.map(Some)
    }
}

/// DeleteOptions come in the version of whatever group is talked to.
fn without_kind(
    root: Option<Root<'_>>,
    decode: impl FnOnce(Option<Root<'_>>) -> Result<decode::Decoded>,
) -> Result<Value> {
    let root = root.map(|root| Root { kind: None, ..root });
    decode(root).map(|decoded| decoded.value)
}

/// A body as an object of `gvk`, with warnings for its author.
pub fn decode_body(
    bytes: &[u8],
    format: Format,
    gvk: &Gvk,
    validation: &str,
) -> Result<(Value, Vec<String>)> {
    let table = schema::builtin();
    let root = table.root(gvk);
    let how = validation_of(validation);
    let decoded = match format {
        Format::Json => decode::json(bytes, root, how)?,
        Format::Yaml => decode::yaml(bytes, root, how)?,
        Format::Protobuf => {
            let (said, value) = decode::protobuf(bytes, &|said| {
                if said.kind.is_empty() { root } else { table.root(said) }
            })?;
            if !said.kind.is_empty() && said != *gvk {
                return Err(wrong_kind(&said, gvk));
            }
            decode::Decoded { value, warnings: Vec::new() }
        }
    };
    let mut value = decoded.value;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), gvk.api_version().into());
        map.insert("kind".to_owned(), gvk.kind.clone().into());
    }
    Ok((value, decoded.warnings))
}

fn wrong_kind(said: &Gvk, expected: &Gvk) -> Status {
    let (have, want) = (said.api_version(), expected.api_version());
    if have == want {
        return Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: converting ({have}.{}) to ({want}.{}): \
             unknown conversion",
            said.kind, said.version, expected.kind, said.kind, expected.kind
        ));
    }
    Status::bad_request(format!(
        "the API version in the data ({have}) does not match the expected API version ({want})"
    ))
}

/// What `fieldValidation` asks for.
pub fn validation_of(text: &str) -> Validation {
    match text {
        "Ignore" => Validation::Ignore,
        "Strict" => Validation::Strict,
        _ => Validation::Warn,
    }
}

/// Adds `Warning:` headers in upstream's form.
pub fn add_warnings(reply: &mut Reply, warnings: &[String]) {
    for text in warnings {
        let clean: String = text.chars().filter(|character| !character.is_control()).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            reply.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// Whether a wish is for whole objects.
pub fn is_whole(wish: &Wish) -> bool {
    wish.shape == Shape::Whole
}

/// Whether nothing of this kind has an effect yet, told to who creates one.
pub fn warn_inert(call: &Call, kind: &Kind) {
    if let Some(why) = kind.inert {
        call.warn(format!("{}: {why}", kind.gvr().group_resource()));
    }
}
