//! Answers that are not JSON: protobuf by the table's field numbers, and YAML.
//!
//! Why: generated Go clients ask for protobuf first; the table that reads their bodies can write
//! their answers.

use std::collections::BTreeMap;

use base64::Engine;

use super::wire::{MAGIC, put_bytes, put_fixed64, put_number};
use super::{Field, Or, Root, Schemas, Struct, Type, yaml_out};
use crate::object::{Gvk, Map, Value, time};

/// The object as protobuf in its envelope. What does not fit its type is left out.
pub fn protobuf(gvk: &Gvk, value: &Value, root: Root) -> Vec<u8> {
    let mut kind = Vec::new();
    put_bytes(&mut kind, 1, gvk.api_version().as_bytes());
    put_bytes(&mut kind, 2, gvk.kind.as_bytes());
    let mut raw = Vec::new();
    if let Value::Object(map) = value {
        Writer { schemas: root.schemas }.message(root.get(), map, &mut raw);
    }
    let mut out = Vec::with_capacity(raw.len() + kind.len() + 32);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &kind);
    put_bytes(&mut out, 2, &raw);
    // contentEncoding and contentType are always there, and empty.
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// The value as YAML, with lists as kubectl indents them.
pub fn yaml(value: &Value) -> String {
    yaml_out::write(value)
}

struct Writer<'s> {
    schemas: &'s Schemas,
}

impl Writer<'_> {
    fn message(&self, of: &Struct, map: &Map, out: &mut Vec<u8>) {
        // Fields of inlined messages are gathered, then written as those messages.
        let mut inlined: BTreeMap<[u16; 2], Vec<u8>> = BTreeMap::new();
        for (name, value) in map {
            let Some(field) = of.field(name).filter(|field| field.numbers[0] != 0) else {
                continue;
            };
            match field.numbers {
                [number, 0, _] => self.field(field, number, value, out),
                [outer, number, 0] => {
                    self.field(field, number, value, inlined.entry([outer, 0]).or_default());
                }
                [outer, inner, number] => {
                    self.field(field, number, value, inlined.entry([outer, inner]).or_default());
                }
            }
        }
        let mut outermost: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for ([outer, inner], bytes) in inlined {
            let place = outermost.entry(outer).or_default();
            match inner {
                0 => place.extend_from_slice(&bytes),
                inner => put_bytes(place, inner, &bytes),
            }
        }
        for (number, bytes) in outermost {
            put_bytes(out, number, &bytes);
        }
    }

    fn field(&self, field: &Field, number: u16, value: &Value, out: &mut Vec<u8>) {
        match (&field.ty, value) {
            (Type::List(list), Value::Array(items)) => {
                for item in items {
                    self.value(&list.item, number, item, out);
                }
            }
            (Type::Map(of), Value::Object(entries)) => {
                for (key, value) in entries {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    match (&of.item, value) {
                        (Type::List(list), Value::Array(items)) => {
                            let mut inner = Vec::new();
                            for item in items {
                                self.value(&list.item, 1, item, &mut inner);
                            }
                            put_bytes(&mut entry, 2, &inner);
                        }
                        (item, value) => self.value(item, 2, value, &mut entry),
                    }
                    put_bytes(out, number, &entry);
                }
            }
            (ty, value) => self.value(ty, number, value, out),
        }
    }

    fn value(&self, ty: &Type, number: u16, value: &Value, out: &mut Vec<u8>) {
        let engine = base64::engine::general_purpose::STANDARD;
        match (ty, value) {
            (Type::Bool, Value::Bool(value)) => put_number(out, number, u64::from(*value)),
            (Type::Int32 | Type::Int64, Value::Number(value)) => {
                put_number(out, number, value.as_i64().unwrap_or(0) as u64);
            }
            (Type::Double, Value::Number(value)) => {
                put_fixed64(out, number, value.as_f64().unwrap_or(0.0).to_bits());
            }
            (Type::String(_), Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Type::Bytes, Value::String(text)) => {
                put_bytes(out, number, &engine.decode(text).unwrap_or_default());
            }
            (Type::Struct(id), Value::Object(map)) => {
                let mut inner = Vec::new();
                self.message(self.schemas.get(*id), map, &mut inner);
                put_bytes(out, number, &inner);
            }
            (Type::SchemaOr(or, id), value) => {
                put_bytes(out, number, &self.schema_or(*or, *id, value));
            }
            (_, Value::Null) => {}
            (ty, value) => put_bytes(out, number, &word(ty, value)),
        }
    }

    fn schema_or(&self, or: Or, id: u32, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let schema = if or == Or::Bool { 2 } else { 1 };
        if or == Or::Bool {
            // Upstream's own decoder allows whatever a schema describes.
            put_number(&mut out, 1, u64::from(*value != Value::Bool(false)));
        }
        match value {
            Value::Object(_) => self.value(&Type::Struct(id), schema, value, &mut out),
            Value::Array(items) => {
                let item = if or == Or::Strings { Type::String("") } else { Type::Struct(id) };
                for one in items {
                    self.value(&item, 2, one, &mut out);
                }
            }
            _ => {}
        }
        out
    }
}

/// The message of a type that is one word in JSON.
fn word(ty: &Type, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match (ty, value) {
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            if let Some(at) = time::parse(text) {
                put_number(&mut out, 1, at.as_second() as u64);
                put_number(&mut out, 2, at.subsec_nanosecond() as u64);
            }
        }
        (Type::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
        (Type::IntOrString, Value::String(text)) => {
            put_number(&mut out, 1, 1);
            put_number(&mut out, 2, 0);
            put_bytes(&mut out, 3, text.as_bytes());
        }
        (Type::IntOrString, Value::Number(value)) => {
            put_number(&mut out, 1, 0);
            put_number(&mut out, 2, value.as_i64().unwrap_or(0) as u64);
            put_bytes(&mut out, 3, b"");
        }
        (Type::Any | Type::Fields, value) => {
            put_bytes(&mut out, 1, value.to_string().as_bytes());
        }
        _ => {}
    }
    out
}
