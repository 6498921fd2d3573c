//! Who owns which field: managedFields of plain writes, and server-side apply.
//!
//! Why here: a patch library knows objects only; who writes, when and through which subresource is
//! the request's to say.

use super::write::{self, Rules, Written};
use crate::api::server::Call;
use crate::client::WriteOptions;
use crate::object::patch::apply::{self, Manager};
use crate::object::status::{Result, Status};
use crate::object::{Value, schema};

/// Longest name taken from a user agent, in bytes (upstream's `prefixFromUserAgent`).
const AGENT_BYTES_MAX: usize = 128;

fn manager(call: &Call, options: &WriteOptions) -> Manager {
    let name = if options.field_manager.is_empty() {
        let agent = call.request.user_agent.split('/').next().unwrap_or("");
        agent.chars().filter(|c| !c.is_control()).take(AGENT_BYTES_MAX).collect()
    } else {
        options.field_manager.clone()
    };
    let splits = call.kind.has_status() && call.kind.strategy.splits_status();
    let reset = match call.attributes.subresource.as_str() {
        "" | "scale" if splits => vec![vec!["status"]],
        "status" => vec![vec!["spec"]],
        _ => Vec::new(),
    };
    Manager {
        name,
        api_version: call.kind.gvk.api_version(),
        subresource: call.attributes.subresource.clone(),
        time: call.api.clock.now(),
        reset,
    }
}

/// Enters a create, PUT or patch into managedFields.
pub fn update<'a>(
    call: &'a Call,
    options: &'a WriteOptions,
) -> impl Fn(Option<&Value>, Value) -> Result<Value> + Send + Sync + 'a {
    move |old, mut new| {
        if let Some(root) = schema::builtin().root(&call.kind.gvk) {
            apply::track(root, old, &mut new, &manager(call, options));
        }
        Ok(new)
    }
}

/// Server-side apply: creates what is missing.
pub async fn apply(call: &Call, config: &Value, options: &WriteOptions) -> Result<Written> {
    let root = schema::builtin().root(&call.kind.gvk).ok_or_else(Status::no_such_path)?;
    let who = manager(call, options);
    let track = |_: Option<&Value>, new: Value| Ok(new);
    let create = call.attributes.subresource.is_empty();
    let rules = Rules { create, track: &track, options };
    write::update(call, &rules, &|old| apply::apply(root, old, config, &who, options.force)).await
}
