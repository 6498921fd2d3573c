//! Subresources with a meaning of their own, one file each.
//!
//! Why a table by name: the kinds' list says which kind has which; here stands who answers. What is
//! not in this table is a plain write of a part of the object ([`super::handlers`]): `status`,
//! `finalize`, `approval`, `ephemeralcontainers`, `resize`.

pub mod binding;
pub mod eviction;
mod proxy;
mod rewrite;
mod streams;

use http::StatusCode;

use super::body::Reply;
use super::data::Moment;
use super::handlers::{Request, encode, get};
use super::hooks::Asked;
use super::kind::Subresource;
use super::negotiate::Format;
use super::server::Call;
use crate::object::Gvk;
use crate::object::Value;
use crate::object::status::{Result, Status};

const FORMATS: &[Format] = &[Format::Json, Format::Yaml, Format::Protobuf];

/// Answers a request to a special subresource; `None`: the verb on the object does.
pub async fn handle(call: &Call, request: &mut Request) -> Option<Result<Reply>> {
    Some(match call.attributes.subresource.as_str() {
        "log" | "exec" | "attach" | "portforward" => streams::handle(call, request).await,
        "proxy" => proxy::handle(call, request).await,
        "binding" | "eviction" | "token" => posted(call, request).await,
        "finalize" | "approval" | "ephemeralcontainers" | "resize" => return None,
        other => Err(Status::failure(
            501,
            "NotImplemented",
            format!("the {other} subresource is not served yet"),
        )),
    })
}

/// A POST of a body of another kind.
async fn posted(call: &Call, request: &mut Request) -> Result<Reply> {
    let wish = request.wish(FORMATS)?;
    let options = request.query.write("CreateOptions")?;
    let gvk = body_kind(call)?;
    let body = request.object_of(call, &gvk, &options.field_validation).await?;
    let answer = post(call, body, options.dry_run).await?;
    let gvk = crate::object::meta::gvk(&answer).unwrap_or(gvk);
    encode::value(&request.query, &wish, StatusCode::CREATED, &gvk, answer)
}

fn body_kind(call: &Call) -> Result<Gvk> {
    match call.kind.subresource(&call.attributes.subresource) {
        Some(Subresource::Special { body: (group, version, kind), .. }) => {
            Ok(Gvk::new(*group, *version, *kind))
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The same for components of this process.
pub async fn post(call: &Call, body: Value, dry_run: bool) -> Result<Value> {
    match call.attributes.subresource.as_str() {
        "binding" => Ok(binding::bind(call, &body, dry_run).await?.to_value()),
        "eviction" => Ok(eviction::evict(call, &body, dry_run).await?.to_value()),
        name => {
            let (resource, group) = &call.kind.storage;
            let at = (group.clone(), resource.clone(), name.to_owned());
            let hook = call.api.post_only.get(&at).ok_or_else(|| {
                Status::failure(501, "NotImplemented", format!("nothing answers {resource}/{name}"))
            })?;
            let parent = super::data::decode(&get::get(call, "").await?)?;
            let view = Moment(call.api.data.fresh().await?);
            let asked = Asked {
                attributes: &call.attributes,
                request: &call.request,
                view: &view,
                now: call.api.clock.now(),
                dry_run,
            };
            hook.post(&asked, &parent, body).await
        }
    }
}
