//! Protobuf bodies, read by the table's field numbers.
//!
//! Why zeros are dropped: Go sends every field that is no pointer, set or not; its JSON form leaves
//! the zeros out, and the object must be the same whichever encoding a client chose.

use base64::Engine;

use super::scalars;
use crate::object::schema::wire::{Fields, MAGIC, Payload};
use crate::object::schema::{Field, MapOf, Or, Root, Schemas, Struct, Type};
use crate::object::{GroupVersion, Gvk, Map, Status, Value, time};
use crate::stdx::limits::BODY_DEPTH_MAX;

/// Decodes a protobuf object in its envelope. `root_of` says the type of the kind that the envelope
/// names (empty texts where it names none).
pub fn protobuf<'r>(
    body: &[u8],
    root_of: &dyn Fn(&Gvk) -> Option<Root<'r>>,
) -> Result<(Gvk, Value), Status> {
    let bad = |error: String| Status::bad_request(error);
    let (said, raw) = envelope(body).map_err(bad)?;
    let Some(root) = root_of(&said) else {
        return Err(Status::bad_request(format!(
            "no kind {:?} is registered for version {:?} in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\"",
            said.kind,
            said.api_version()
        )));
    };
    let gvk = match root.kind {
        Some(kind) if said.kind.is_empty() => kind.clone(),
        _ => said,
    };
    let mut map = Map::new();
    let reader = Reader { schemas: root.schemas };
    reader.message(root.get(), 0, &[], raw, &mut map).map_err(|error| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            gvk.kind,
            gvk.version,
            root.kind_name()
        ))
    })?;
    map.insert("apiVersion".to_owned(), gvk.api_version().into());
    map.insert("kind".to_owned(), gvk.kind.clone().into());
    Ok((gvk, Value::Object(map)))
}

/// `runtime.Unknown`: the kind and the object's bytes.
fn envelope(body: &[u8]) -> Result<(Gvk, &[u8]), String> {
    let body = body.strip_prefix(MAGIC).ok_or_else(|| {
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
            .to_owned()
    })?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(body) {
        match field? {
            (1, payload) => {
                for field in Fields(payload.bytes()?) {
                    match field? {
                        (1, payload) => api_version = payload.text()?,
                        (2, payload) => kind = payload.text()?,
                        _ => {}
                    }
                }
            }
            (2, payload) => raw = payload.bytes()?,
            _ => {}
        }
    }
    let version = match GroupVersion::parse(&api_version) {
        Some(version) => version,
        None if api_version.is_empty() => GroupVersion::new("", ""),
        None => return Err(format!("unexpected GroupVersion string: {api_version}")),
    };
    Ok((Gvk::new(version.group, version.version, kind), raw))
}

struct Reader<'s> {
    schemas: &'s Schemas,
}

impl Reader<'_> {
    /// Reads a message into `map`; `prefix` are the numbers of the inlined messages around it.
    fn message(
        &self,
        of: &Struct,
        depth: usize,
        prefix: &[u16],
        bytes: &[u8],
        map: &mut Map,
    ) -> Result<(), String> {
        if depth > BODY_DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        let level = prefix.len();
        for item in Fields(bytes) {
            let (number, payload) = item?;
            let known = of.fields.iter().find(|field| {
                field.numbers.get(level) == Some(&number) && field.numbers.starts_with(prefix)
            });
            let Some(field) = known else { continue };
            if field.numbers.get(level + 1).is_some_and(|inner| *inner != 0) {
                let mut inner = prefix.to_vec();
                inner.push(number);
                self.message(of, depth + 1, &inner, payload.bytes()?, map)?;
            } else {
                self.field(field, depth, payload, map)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        depth: usize,
        payload: Payload,
        map: &mut Map,
    ) -> Result<(), String> {
        let name = field.name.as_ref();
        match &field.ty {
            Type::List(list) => {
                let place = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = place else { return Ok(()) };
                let packed = matches!(list.item, Type::Bool | Type::Int32 | Type::Int64);
                match payload {
                    Payload::Bytes(bytes) if packed => {
                        let mut rest = Fields(bytes);
                        while !rest.0.is_empty() {
                            let number = Payload::Varint(rest.varint()?);
                            items.push(self.value(&list.item, depth, number)?);
                        }
                    }
                    payload => items.push(self.value(&list.item, depth, payload)?),
                }
            }
            Type::Map(of) => {
                let place = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(entries) = place else { return Ok(()) };
                let (key, value) = self.entry(of, depth, payload.bytes()?)?;
                entries.insert(key, value);
            }
            ty => {
                let value = self.value(ty, depth, payload)?;
                let keep = field.required || field.pointer || !is_zero(ty, &value);
                if keep && !value.is_null() {
                    map.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, of: &MapOf, depth: usize, bytes: &[u8]) -> Result<(String, Value), String> {
        let mut key = String::new();
        let mut value = None;
        for field in Fields(bytes) {
            match field? {
                (1, payload) => key = payload.text()?,
                // A list as a map's value is a message of its own that holds `items`.
                (2, payload) => match &of.item {
                    Type::List(list) => {
                        let mut items = Vec::new();
                        for item in Fields(payload.bytes()?) {
                            items.push(self.value(&list.item, depth + 1, item?.1)?);
                        }
                        value = Some(Value::Array(items));
                    }
                    item => value = Some(self.value(item, depth + 1, payload)?),
                },
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => match &of.item {
                Type::List(_) => Value::Array(Vec::new()),
                Type::String(_) => Value::from(""),
                item => self.value(item, depth + 1, Payload::Bytes(&[])).unwrap_or_default(),
            },
        };
        Ok((key, value))
    }

    fn value(&self, ty: &Type, depth: usize, payload: Payload) -> Result<Value, String> {
        Ok(match ty {
            Type::Bool => Value::Bool(payload.varint()? != 0),
            Type::Int32 => Value::from(payload.varint()? as i32),
            Type::Int64 => Value::from(payload.varint()? as i64),
            Type::Double => match payload {
                Payload::Fixed64(bits) => scalars::double(&f64::from_bits(bits).to_string())
                    .ok_or("json: unsupported value: NaN or infinite")?,
                other => return Err(format!("proto: wrong wireType for a double: {other:?}")),
            },
            Type::String(_) => Value::String(payload.text()?),
            Type::Bytes => {
                let engine = base64::engine::general_purpose::STANDARD;
                Value::String(engine.encode(payload.bytes()?))
            }
            Type::Time | Type::MicroTime => instant(ty, payload.bytes()?)?,
            Type::Quantity => {
                let text = inner_text(payload.bytes()?)?;
                let text = if text.is_empty() { "0" } else { text.as_str() };
                Value::String(scalars::quantity(text)?)
            }
            Type::IntOrString => int_or_string(payload.bytes()?)?,
            Type::Any | Type::Fields => match inner_bytes(payload.bytes()?)? {
                [] => Value::Null,
                raw => {
                    let node = super::scan::json(raw)?;
                    super::conform::untyped(node, &mut |_, _| {})?
                }
            },
            Type::Struct(id) => self.object(*id, depth, payload.bytes()?)?,
            Type::SchemaOr(or, id) => self.schema_or(*or, *id, depth, payload.bytes()?)?,
            Type::List(_) | Type::Map(_) => return Err("proto: a list inside a list".to_owned()),
        })
    }

    fn object(&self, id: u32, depth: usize, bytes: &[u8]) -> Result<Value, String> {
        let mut map = Map::new();
        self.message(self.schemas.get(id), depth + 1, &[], bytes, &mut map)?;
        Ok(Value::Object(map))
    }

    fn schema_or(&self, or: Or, id: u32, depth: usize, bytes: &[u8]) -> Result<Value, String> {
        let (mut allows, mut schema, mut items) = (false, None, Vec::new());
        for field in Fields(bytes) {
            match (or, field?) {
                (Or::Bool, (1, payload)) => allows = payload.varint()? != 0,
                (Or::Bool, (2, payload)) | (Or::Array | Or::Strings, (1, payload)) => {
                    schema = Some(self.object(id, depth + 1, payload.bytes()?)?);
                }
                (Or::Array, (2, payload)) => {
                    items.push(self.object(id, depth + 1, payload.bytes()?)?);
                }
                (Or::Strings, (2, payload)) => items.push(Value::String(payload.text()?)),
                _ => {}
            }
        }
        Ok(match (or, schema) {
            (_, Some(schema)) if items.is_empty() => schema,
            (Or::Bool, _) => Value::Bool(allows),
            _ => Value::Array(items),
        })
    }
}

/// The bytes of field 1.
fn inner_bytes(bytes: &[u8]) -> Result<&[u8], String> {
    for field in Fields(bytes) {
        if let (1, payload) = field? {
            return payload.bytes();
        }
    }
    Ok(&[])
}

fn inner_text(bytes: &[u8]) -> Result<String, String> {
    Ok(String::from_utf8_lossy(inner_bytes(bytes)?).into_owned())
}

fn instant(ty: &Type, bytes: &[u8]) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in Fields(bytes) {
        match field? {
            (1, payload) => seconds = payload.varint()? as i64,
            (2, payload) => nanos = payload.varint()? as i32,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    Ok(Value::String(if *ty == Type::MicroTime { time::micros(at) } else { time::seconds(at) }))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, payload) => is_text = payload.varint()? == 1,
            (2, payload) => number = payload.varint()? as i32,
            (3, payload) => text = payload.text()?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(text) } else { Value::from(number) })
}

/// What Go's `omitempty` leaves out.
fn is_zero(ty: &Type, value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() && *ty != Type::IntOrString,
        _ => false,
    }
}
