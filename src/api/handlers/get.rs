//! GET of one object.

use bytes::Bytes;

use super::{convert, list};
use crate::api::server::Call;
use crate::object::status::{Result, Status};

/// The object's bytes, at least as new as `resource_version` asks ("": the newest).
pub async fn get(call: &Call, resource_version: &str) -> Result<Bytes> {
    let view = list::view(call, resource_version).await?;
    let name = call.attributes.name.as_str();
    let entry = view.get(&call.key(name));
    let entry = entry.ok_or_else(|| Status::not_found(&call.kind.gvr(), name))?;
    convert::bytes(&call.kind, &entry.value)
}
