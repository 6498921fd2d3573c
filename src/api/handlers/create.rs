//! POST of a new object.

use super::write::{self, Written};
use super::{fields, prepare, warn_inert};
use crate::api::metadata;
use crate::api::server::Call;
use crate::client::WriteOptions;
use crate::object::Value;
use crate::object::status::Result;

/// Stores `body` as a new object.
pub async fn create(call: &Call, mut body: Value, options: &WriteOptions) -> Result<Written> {
    prepare::wipe_system_fields(&mut body);
    prepare::place(call, &mut body)?;
    let repeated = metadata::dedup_owners(&mut body);
    if !repeated.is_empty() {
        call.warn(write::repeated_owners(&repeated, ""));
    }
    warn_inert(call, &call.kind);
    let track = fields::update(call, options);
    write::create(call, &body, options, &track).await
}
