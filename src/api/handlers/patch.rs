//! PATCH: JSON, merge, strategic merge, and server-side apply.
//!
//! Why as functions of the present object: the write path calls them again when another write came
//! between.

use super::write::{self, Rules, Written};
use super::{decode_body, fields, validation_of};
use crate::api::negotiate::Format;
use crate::api::server::Call;
use crate::client::{PatchKind, WriteOptions};
use crate::object::schema::decode::{self, Validation};
use crate::object::schema::{self, Root};
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Gvk, Value, patch};

/// Reads a patch's body.
pub fn read(call: &Call, kind: PatchKind, bytes: &[u8], options: &WriteOptions) -> Result<Value> {
    if kind == PatchKind::Apply {
        if options.field_manager.is_empty() {
            let why = "is required for apply patch";
            let error = FieldError::required("fieldManager", why);
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let validation = options.field_validation.as_str();
        let (value, warnings) = decode_body(bytes, Format::Yaml, &call.kind.gvk, validation)?;
        warnings.into_iter().for_each(|text| call.warn(text));
        return Ok(value);
    }
    if options.force {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    match kind {
        PatchKind::Json => serde_json::from_slice(bytes)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}"))),
        _ => Ok(decode::json(bytes, None, Validation::Ignore)?.value),
    }
}

/// Changes the object that `call` names.
pub async fn patch(
    call: &Call,
    kind: PatchKind,
    body: &Value,
    options: &WriteOptions,
) -> Result<Written> {
    if kind == PatchKind::Apply {
        return fields::apply(call, body, options).await;
    }
    let track = fields::update(call, options);
    let rules = Rules { create: false, track: &track, options };
    let next = |old: Option<&Value>| match old {
        Some(old) => changed(call, &call.kind.gvk, kind, old, body, options),
        None => Err(Status::not_found(&call.kind.gvr(), &call.attributes.name)),
    };
    write::update(call, &rules, &next).await
}

/// `old` with the patch applied, checked against its type.
pub fn changed(
    call: &Call,
    gvk: &Gvk,
    kind: PatchKind,
    old: &Value,
    body: &Value,
    options: &WriteOptions,
) -> Result<Value> {
    let root = schema::builtin().root(gvk);
    let new = match (kind, root) {
        (PatchKind::Json, _) => patch::json::apply(old, body)?,
        (PatchKind::Strategic, Some(root)) => patch::strategic::apply(root, old, body)?,
        (PatchKind::Strategic, None) => {
            return Err(crate::api::negotiate::unsupported(&[
                PatchKind::Json.content_type(),
                PatchKind::Merge.content_type(),
            ]));
        }
        _ => patch::merge::apply(old, body),
    };
    checked(call, root, new, body, options)
}

fn checked(
    call: &Call,
    root: Option<Root<'_>>,
    new: Value,
    body: &Value,
    options: &WriteOptions,
) -> Result<Value> {
    let Some(root) = root else { return Ok(new) };
    let how = validation_of(&options.field_validation);
    let decoded = decode::value(new, root, how).map_err(|why| {
        let error = FieldError::invalid("patch", patch::go_print(body), why);
        Status::invalid("", "", "", &[error])
    })?;
    decoded.warnings.into_iter().for_each(|text| call.warn(text));
    Ok(decoded.value)
}
