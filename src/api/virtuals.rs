//! Resources without objects: reviews, the old `bindings` collection, component statuses.
//!
//! Why apart from kinds: they have no key, no versions to convert and no write path; they are
//! decoded, answered by a hook and encoded.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::body::{self, Reply};
use super::chain::Incoming;
use super::context::{Attributes, RequestContext};
use super::data::Moment;
use super::handlers::{self, encode};
use super::hooks::Asked;
use super::negotiate::{self, Format, Shape};
use super::resources::Virtual;
use super::server::Api;
use super::subresources::binding;
use crate::object::status::{Result, Status};
use crate::object::{Gvk, Value, meta};
use crate::stdx::limits::REQUEST_BODY_BYTES_MAX;

const FORMATS: &[Format] = &[Format::Json, Format::Yaml, Format::Protobuf];

/// Answers an authorized request to a resource that has no kind in the registry.
pub async fn handle(api: &Arc<Api>, incoming: Incoming) -> Result<Reply> {
    let Incoming { parts, body, query, attributes, context, .. } = incoming;
    let one = find(api, &attributes).ok_or_else(Status::no_such_path)?;
    let gvk = Gvk::new(one.gvk.0, one.gvk.1, one.gvk.2);
    // Nobody lists what can only be created, so it has no columns.
    let has_rows = one.verbs.contains(&"list");
    let has_shape = |shape: &Shape| has_rows || !matches!(shape, Shape::Table(_));
    let pretty = query.flag("pretty");
    let wish = negotiate::accepted_in(&parts.headers, pretty, FORMATS, has_shape)?;
    match attributes.verb.as_str() {
        verb if !one.verbs.contains(&verb) => {
            let gvr = attributes.gvr.clone().ok_or_else(Status::no_such_path)?;
            Err(Status::method_not_supported(&gvr, verb))
        }
        // A computed answer has no metadata, so it is no row of a table.
        "create" if wish.shape != Shape::Whole => Err(negotiate::not_acceptable(FORMATS)),
        "create" => {
            let options = query.write("CreateOptions")?;
            let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
            let format = negotiate::content(&parts.headers)?;
            let validation = options.field_validation.as_str();
            let (object, warnings) = handlers::decode_body(&bytes, format, &gvk, validation)?;
            let (gvk, it) = create(api, &attributes, &context, object, options.dry_run).await?;
            let mut reply = encode::value(&query, &wish, StatusCode::CREATED, &gvk, it)?;
            handlers::add_warnings(&mut reply, &warnings);
            Ok(reply)
        }
        "list" => {
            let items = component_statuses(api).await;
            let list = json!({"kind": format!("{}List", gvk.kind), "metadata": {},
                "apiVersion": gvk.api_version(), "items": items});
            let list_gvk = Gvk { kind: format!("{}List", gvk.kind), ..gvk };
            encode::value(&query, &wish, StatusCode::OK, &list_gvk, list)
        }
        _ => {
            let name = attributes.name.as_str();
            let found = component_statuses(api).await.into_iter().find(|it| meta::name(it) == name);
            let gvr = attributes.gvr.clone().ok_or_else(Status::no_such_path)?;
            let it = found.ok_or_else(|| Status::not_found(&gvr, name))?;
            encode::value(&query, &wish, StatusCode::OK, &gvk, it)
        }
    }
}

fn find<'a>(api: &'a Api, attributes: &Attributes) -> Option<&'a Virtual> {
    let gvr = attributes.gvr.as_ref()?;
    api.virtuals.iter().find(|one| {
        (one.gvk.0, one.gvk.1, one.resource) == (&gvr.group, &gvr.version, &gvr.resource)
            && attributes.subresource.is_empty()
            && one.namespaced != attributes.namespace.is_empty()
    })
}

/// Creates a computed object: the answer and its kind.
pub async fn create(
    api: &Arc<Api>,
    attributes: &Attributes,
    request: &RequestContext,
    mut object: Value,
    dry_run: bool,
) -> Result<(Gvk, Value)> {
    let gvr = attributes.gvr.as_ref().ok_or_else(Status::no_such_path)?;
    if gvr.group.is_empty() && gvr.resource == "bindings" {
        let status = binding::bind_by_name(api, attributes, request, object, dry_run).await?;
        return Ok((Gvk::new("", "v1", "Status"), status.to_value()));
    }
    let one = find(api, attributes).ok_or_else(Status::no_such_path)?;
    let at = (gvr.group.clone(), gvr.resource.clone());
    let hook = api.create_only.get(&at).ok_or_else(|| {
        Status::failure(501, "NotImplemented", format!("nothing answers {}", gvr.group_resource()))
    })?;
    if one.namespaced {
        let (wanted, given) = (attributes.namespace.as_str(), meta::namespace(&object));
        if !given.is_empty() && given != wanted {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
        meta::set(&mut object, &["metadata", "namespace"], wanted);
    }
    let view = Moment(api.data.fresh().await?);
    let now = api.clock.now();
    let asked = Asked { attributes, request, view: &view, now, dry_run };
    let answer = hook.create(&asked, object).await?;
    Ok((Gvk::new(one.gvk.0, one.gvk.1, one.gvk.2), answer))
}

/// The health of what upstream calls components: here they are parts of this process.
async fn component_statuses(api: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for check in &api.checks {
        let (status, message) = match check.check().await {
            Ok(()) => ("True", "ok".to_owned()),
            Err(why) => ("False", why),
        };
        all.push(json!({"apiVersion": "v1", "kind": "ComponentStatus",
            "metadata": {"name": check.name()},
            "conditions": [{"type": "Healthy", "status": status, "message": message}]}));
    }
    all
}
