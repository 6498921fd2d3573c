//! Objects as rows: what `kubectl get` prints.
//!
//! Why on the server: every client prints the same columns, for kinds it has never heard of too.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::data;
use super::kind::Kind;
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};

/// Which part of each object goes along in its row (`?includeObject=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    Nothing,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query's parameter.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::Nothing),
            "Object" => Ok(Self::Object),
            other => {
                Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")))
            }
        }
    }
}

const NAME_IS: &str = "Name must be unique within a namespace. Is required when creating \
    resources, although some resources may allow a client to request the generation of an \
    appropriate name automatically. Name is primarily intended for creation idempotence and \
    configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

fn has_own_name(kind: &Kind) -> bool {
    kind.strategy.columns().iter().any(|column| column.name == "Name")
}

/// The headings.
pub fn columns(kind: &Kind) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": NAME_IS,
        "priority": 0});
    let name = (!has_own_name(kind)).then_some(name);
    let rest = kind.strategy.columns().iter().map(|column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": "", "priority": column.priority})
    });
    name.into_iter().chain(rest).collect()
}

/// One object's row.
pub fn row(kind: &Kind, object: Value, include: Include, version: &str, now: Timestamp) -> Value {
    let mut cells = kind.strategy.cells(&object, now);
    if !has_own_name(kind) {
        cells.insert(0, meta::name(&object).into());
    }
    let shown = match include {
        Include::Nothing => Value::Null,
        Include::Metadata => metadata(object, version),
        Include::Object => object,
    };
    let mut row = json!({ "cells": cells });
    if !shown.is_null() {
        row["object"] = shown;
    }
    row
}

/// `PartialObjectMetadata` of an object.
pub fn metadata(mut object: Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": meta::remove(&mut object, &["metadata"]).unwrap_or_default(),
    })
}

/// A table of these objects; without headings where the client has them already.
pub fn table(
    kind: &Kind,
    objects: &[Bytes],
    include: Include,
    version: &str,
    now: Timestamp,
    with_columns: bool,
) -> Result<Value> {
    let rows = objects.iter().map(|bytes| {
        let object = data::decode(bytes)?;
        Ok(row(kind, object, include, version, now))
    });
    let rows: Vec<Value> = rows.collect::<Result<_>>()?;
    Ok(json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {},
        "columnDefinitions": if with_columns { columns(kind) } else { Value::Null },
        "rows": rows,
    }))
}
