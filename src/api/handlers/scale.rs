//! The `scale` subresource: one number of an object, in a kind of its own.
//!
//! Why over the object's own write path: a scale is an update of the object, with its validation,
//! admission and conflicts.

use http::StatusCode;
use serde_json::json;

use super::write::{self, Rules, Written};
use super::{FORMATS, Request, encode, fields, get, patch, patch_kind};
use crate::api::body::Reply;
use crate::api::kind::Subresource;
use crate::api::server::Call;
use crate::client::{PatchKind, WriteOptions};
use crate::object::selector::Selector;
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Gvk, Value, meta};

/// The kind of the body.
pub fn gvk() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

type Path = &'static [&'static str];

fn paths(call: &Call) -> Result<(Path, Path, Path)> {
    match call.kind.subresource("scale") {
        Some(Subresource::Scale { spec, status, selector }) => Ok((spec, status, selector)),
        _ => Err(Status::no_such_path()),
    }
}

/// The object's scale.
pub fn of(call: &Call, object: &Value) -> Result<Value> {
    let (spec, status, selector) = paths(call)?;
    let number = |path| meta::at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta::at(object, &["metadata", field]) {
            metadata[field] = value.clone();
        }
    }
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {}, "status": {"replicas": number(status)},
    });
    if number(spec) != 0 {
        scale["spec"]["replicas"] = number(spec).into();
    }
    let text = meta::at(object, selector).map(selector_text).unwrap_or_default();
    if !text.is_empty() {
        scale["status"]["selector"] = text.into();
    }
    Ok(scale)
}

/// A LabelSelector or a plain map as text.
fn selector_text(selector: &Value) -> String {
    let Some(map) = selector.as_object() else {
        return selector.as_str().unwrap_or("").to_owned();
    };
    let is_selector = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
    let parsed = if is_selector {
        Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
    } else {
        Selector::from_pairs(map.iter().filter_map(|(key, value)| Some((key, value.as_str()?))))
    };
    parsed.to_string()
}

/// Writes what `next` makes of the present scale.
pub async fn write(
    call: &Call,
    options: &WriteOptions,
    next: &(dyn Fn(&Value) -> Result<Value> + Send + Sync),
) -> Result<Value> {
    let (spec, _, _) = paths(call)?;
    let track = fields::update(call, options);
    let rules = Rules { create: false, track: &track, options };
    let scaled = |old: Option<&Value>| {
        let old = old.ok_or_else(|| Status::not_found(&call.kind.gvr(), &call.attributes.name))?;
        let scale = next(&of(call, old)?)?;
        check(call, &scale)?;
        let mut new = old.clone();
        let replicas = meta::at(&scale, &["spec", "replicas"]).and_then(Value::as_i64);
        meta::set(&mut new, spec, replicas.unwrap_or(0));
        for field in ["resourceVersion", "uid"] {
            let given = meta::text(&scale, &["metadata", field]);
            if !given.is_empty() || field == "resourceVersion" {
                meta::set(&mut new, &["metadata", field], given);
            }
        }
        Ok(new)
    };
    let written: Written = write::update(call, &rules, &scaled).await?;
    of(call, &written.value)
}

fn check(call: &Call, scale: &Value) -> Result<()> {
    let name = meta::name(scale);
    let wanted = call.attributes.name.as_str();
    if !name.is_empty() && name != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    let replicas = meta::at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        let error = FieldError::invalid("spec.replicas", replicas, why);
        return Err(Status::invalid("autoscaling", "Scale", wanted, &[error]));
    }
    Ok(())
}

/// GET, PUT and PATCH.
pub async fn http(call: &Call, request: &mut Request) -> Result<Reply> {
    let wish = request.wish(FORMATS)?;
    let scale = match call.attributes.verb.as_str() {
        "get" => {
            let bytes = get::get(call, request.query.get("resourceVersion")).await?;
            of(call, &crate::api::data::decode(&bytes)?)?
        }
        "update" => {
            let options = request.query.write("UpdateOptions")?;
            let body = request.object_of(call, &gvk(), &options.field_validation).await?;
            write(call, &options, &|_| Ok(body.clone())).await?
        }
        _ => {
            let options = request.query.write("PatchOptions")?;
            let kind = patch_kind(request)?;
            let body = patch::read(call, kind, &request.bytes().await?, &options)?;
            patch_scale(call, kind, &body, &options).await?
        }
    };
    encode::value(&request.query, &wish, StatusCode::OK, &gvk(), scale)
}

/// A patch of the scale.
pub async fn patch_scale(
    call: &Call,
    kind: PatchKind,
    body: &Value,
    options: &WriteOptions,
) -> Result<Value> {
    if kind == PatchKind::Apply {
        let known = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic];
        return Err(crate::api::negotiate::unsupported(&known.map(PatchKind::content_type)));
    }
    write(call, options, &|scale| patch::changed(call, &gvk(), kind, scale, body, options)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_selector_become_text() {
        let labels = json!({"matchLabels": {"a": "b"}});
        assert_eq!(selector_text(&labels), "a=b");
        assert_eq!(selector_text(&json!({"c": "d"})), "c=d");
    }
}
