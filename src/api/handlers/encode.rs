//! Answers in the form that the client asked for.
//!
//! Why bytes in: whole JSON in the storage version, which most answers are, leaves as it is stored.

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::delete::Deleted;
use super::list::Page;
use super::write::Written;
use crate::api::body::{self, Reply};
use crate::api::data;
use crate::api::negotiate::{Format, Shape, Wish, not_acceptable};
use crate::api::query::Query;
use crate::api::server::Call;
use crate::api::table::{self, Include};
use crate::client::{Watch, WatchEvent};
use crate::object::schema::{self, encode};
use crate::object::status::{Result, Status};
use crate::object::{Gvk, Value, meta};

/// One object of the call's kind.
pub fn object(
    call: &Call,
    query: &Query,
    wish: &Wish,
    code: StatusCode,
    bytes: Bytes,
) -> Result<Reply> {
    match &wish.shape {
        Shape::Whole if wish.format == Format::Json && !wish.pretty => {
            Ok(body::reply(code, Format::Json.content_type(), bytes))
        }
        Shape::Whole => write(wish, code, &call.kind.gvk, data::decode(&bytes)?),
        Shape::Metadata(version) => {
            let partial = table::metadata(data::decode(&bytes)?, version);
            write(wish, code, &partial_gvk(version), partial)
        }
        Shape::Table(version) => {
            let include = Include::parse(query.get("includeObject"))?;
            let now = call.api.clock.now();
            let object: Value = data::decode(&bytes)?;
            let revision = meta::resource_version(&object).to_owned();
            let mut table = table::table(&call.kind, &[bytes], include, version, now, true)?;
            table["metadata"] = json!({ "resourceVersion": revision });
            write(wish, code, &table_gvk(version), table)
        }
    }
}

/// What an update, patch or apply left.
pub fn written(call: &Call, query: &Query, wish: &Wish, written: Written) -> Result<Reply> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    object(call, query, wish, code, written.bytes)
}

/// What a delete left: the object, or a Status about what is gone.
pub fn deleted(call: &Call, query: &Query, wish: &Wish, deleted: Deleted) -> Result<Reply> {
    match deleted {
        Deleted::Ending(written) => object(call, query, wish, StatusCode::OK, written.bytes),
        Deleted::Gone(last) if call.kind.strategy.returns_deleted() => {
            let bytes = body::to_bytes(&last).into();
            object(call, query, wish, StatusCode::OK, bytes)
        }
        Deleted::Gone(last) => {
            let name = meta::name(&last);
            let status = Status::deleted(&call.kind.gvr(), name, meta::uid(&last));
            write_plain(wish, StatusCode::OK, status.to_value())
        }
    }
}

/// A value that is no object of the call's kind (a scale, a review).
pub fn value(query: &Query, wish: &Wish, code: StatusCode, gvk: &Gvk, it: Value) -> Result<Reply> {
    match &wish.shape {
        Shape::Whole => write(wish, code, gvk, it),
        Shape::Metadata(version) => {
            write(wish, code, &partial_gvk(version), table::metadata(it, version))
        }
        Shape::Table(version) => {
            let include = Include::parse(query.get("includeObject"))?;
            let name = meta::name(&it).to_owned();
            let born = meta::at(&it, &["metadata", "creationTimestamp"]).cloned();
            let mut row = json!({"cells": [name, born]});
            match include {
                Include::Nothing => {}
                Include::Metadata => row["object"] = table::metadata(it, version),
                Include::Object => row["object"] = it,
            }
            let column = |name, kind, format| {
                json!({"name": name, "type": kind, "format": format, "description": "",
                    "priority": 0})
            };
            let table = json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {}, "rows": [row], "columnDefinitions": [
                    column("Name", "string", "name"), column("Created At", "date", "")]});
            write(wish, code, &table_gvk(version), table)
        }
    }
}

fn partial_gvk(version: &str) -> Gvk {
    Gvk::new("meta.k8s.io", version, "PartialObjectMetadata")
}

fn table_gvk(version: &str) -> Gvk {
    Gvk::new("meta.k8s.io", version, "Table")
}

fn write(wish: &Wish, code: StatusCode, gvk: &Gvk, value: Value) -> Result<Reply> {
    if wish.format != Format::Protobuf {
        return write_plain(wish, code, value);
    }
    let root = schema::builtin().root(gvk);
    let root = root.ok_or_else(|| not_acceptable(&[Format::Json, Format::Yaml]))?;
    let bytes = encode::protobuf(gvk, &value, root);
    Ok(body::reply(code, Format::Protobuf.content_type(), bytes))
}

fn write_plain(wish: &Wish, code: StatusCode, value: Value) -> Result<Reply> {
    let content_type = wish.format.content_type();
    let bytes = match wish.format {
        Format::Yaml => encode::yaml(&value).into_bytes(),
        _ if wish.pretty => {
            let mut bytes = serde_json::to_vec_pretty(&value).map_err(Status::internal)?;
            bytes.push(b'\n');
            bytes
        }
        _ => body::to_bytes(&value),
    };
    let content_type =
        if wish.format == Format::Protobuf { Format::Json.content_type() } else { content_type };
    Ok(body::reply(code, content_type, bytes))
}

/// A page of a collection.
pub fn page(call: &Call, query: &Query, wish: &Wish, page: Page) -> Result<Reply> {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.into();
    }
    if let Some(count) = page.remaining {
        metadata["remainingItemCount"] = count.into();
    }
    let gvk = &call.kind.gvk;
    match &wish.shape {
        Shape::Whole if wish.format == Format::Json && !wish.pretty => {
            let head = json!({"kind": list_kind(gvk), "apiVersion": gvk.api_version(),
                "metadata": metadata});
            let mut head = body::to_bytes(&head);
            head.pop();
            head.extend_from_slice(b",\"items\":[");
            let mut reply = body::reply(StatusCode::OK, Format::Json.content_type(), Bytes::new());
            *reply.body_mut() = body::joined(head, page.items, b"]}\n");
            Ok(reply)
        }
        Shape::Whole => {
            let items = page.items.iter().map(|bytes| data::decode(bytes));
            let items: Vec<Value> = items.collect::<Result<_>>()?;
            let list = json!({"kind": list_kind(gvk), "apiVersion": gvk.api_version(),
                "metadata": metadata, "items": items});
            let gvk = Gvk { kind: list_kind(gvk), ..gvk.clone() };
            write(wish, StatusCode::OK, &gvk, list)
        }
        Shape::Metadata(version) => {
            let items =
                page.items.iter().map(|bytes| Ok(table::metadata(data::decode(bytes)?, version)));
            let items: Vec<Value> = items.collect::<Result<_>>()?;
            let list = json!({"kind": "PartialObjectMetadataList", "metadata": metadata,
                "apiVersion": format!("meta.k8s.io/{version}"), "items": items});
            write(wish, StatusCode::OK, &partial_gvk(version), list)
        }
        Shape::Table(version) => {
            let include = Include::parse(query.get("includeObject"))?;
            let now = call.api.clock.now();
            let mut table = table::table(&call.kind, &page.items, include, version, now, true)?;
            table["metadata"] = metadata;
            write(wish, StatusCode::OK, &table_gvk(version), table)
        }
    }
}

fn list_kind(gvk: &Gvk) -> String {
    format!("{}List", gvk.kind)
}

/// A watch: one JSON document a line.
pub fn watch(call: &Call, query: &Query, wish: &Wish, events: Watch) -> Result<Reply> {
    if wish.format != Format::Json {
        return Err(not_acceptable(&[Format::Json]));
    }
    let include = Include::parse(query.get("includeObject"))?;
    let (kind, clock, shape) = (call.kind.clone(), call.api.clock.clone(), wish.shape.clone());
    let mut first = true;
    let lines = events.map(move |event| {
        let with_columns = std::mem::take(&mut first);
        let shaped = |bytes: Bytes| -> Result<Bytes> {
            Ok(match &shape {
                Shape::Whole => bytes,
                Shape::Metadata(version) => {
                    body::to_bytes(&table::metadata(data::decode(&bytes)?, version)).into()
                }
                Shape::Table(version) => {
                    let now = clock.now();
                    let table = table::table(&kind, &[bytes], include, version, now, with_columns)?;
                    body::to_bytes(&table).into()
                }
            })
        };
        let line = event.and_then(|event| {
            let (name, object) = match event {
                WatchEvent::Added(object) => ("ADDED", shaped(object)?),
                WatchEvent::Modified(object) => ("MODIFIED", shaped(object)?),
                WatchEvent::Deleted(object) => ("DELETED", shaped(object)?),
                WatchEvent::Bookmark { resource_version, initial_events_end } => {
                    let mark = bookmark(&kind.gvk, &shape, resource_version, initial_events_end);
                    ("BOOKMARK", body::to_bytes(&mark).into())
                }
            };
            Ok(frame(name, &object))
        });
        Ok(line.unwrap_or_else(|status| frame("ERROR", &body::to_bytes(&status.to_value()))))
    });
    let mut reply = Reply::new(body::stream(lines));
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(reply)
}

fn frame(name: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

fn bookmark(gvk: &Gvk, shape: &Shape, revision: u64, initial_events_end: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if initial_events_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    match shape {
        Shape::Whole => {
            json!({"kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata})
        }
        Shape::Metadata(version) => json!({"kind": "PartialObjectMetadata",
            "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}),
        Shape::Table(version) => {
            let object = json!({"kind": "PartialObjectMetadata",
                "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata});
            let revision = revision.to_string();
            json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {"resourceVersion": revision}, "columnDefinitions": null,
                "rows": [{"cells": [], "object": object}]})
        }
    }
}
