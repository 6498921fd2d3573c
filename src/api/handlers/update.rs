//! PUT: the whole object, or the part that a subresource writes.

use super::fields;
use super::write::{self, Rules, Written};
use crate::api::server::Call;
use crate::client::WriteOptions;
use crate::object::Value;
use crate::object::status::Result;

/// Replaces the object that `call` names.
pub async fn update(call: &Call, body: Value, options: &WriteOptions) -> Result<Written> {
    let track = fields::update(call, options);
    let create =
        call.attributes.subresource.is_empty() && call.kind.strategy.allows_create_on_update();
    let rules = Rules { create, track: &track, options };
    write::update(call, &rules, &|_| Ok(body.clone())).await
}
