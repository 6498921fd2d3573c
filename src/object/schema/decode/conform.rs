//! Turns a tree as it was written into an object of a type.
//!
//! Why one place: JSON, YAML and patched objects all pass here, so types, unknown fields,
//! duplicates and canonical forms are the same whatever way an object came. What is refused, and
//! in which words, follows Go's decoder as Kubernetes sets it up: field names are case-sensitive,
//! `null` is absence, the first type error wins, strict findings are collected.

use std::borrow::Cow;

use base64::Engine;

use super::scalars;
use super::scan::Node;
use crate::object::schema::{Field, Or, Schemas, Struct, Type};
use crate::object::{Map, Value};

/// Strict findings that are kept (upstream's bound).
const STRICT_FINDINGS_MAX: usize = 100;

/// What was found on the way.
#[derive(Default)]
pub(super) struct Findings {
    /// The first type error.
    pub error: Option<String>,
    /// Unknown and duplicate fields.
    pub strict: Vec<String>,
}

/// One walk over one body.
pub(super) struct Conform<'s> {
    pub schemas: &'s Schemas,
    /// Whether unknown and duplicate fields are collected.
    pub strict: bool,
    pub found: Findings,
}

/// Where the walk is; a list on the stack.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Field(&'p Struct, &'p Field),
    Key(&'p str),
    Index(usize),
}

impl Path<'_> {
    /// As in strict findings: `spec.containers[0].env`.
    fn text(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.text(out);
        }
        match self.step {
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Key(name) => push_name(out, name),
            Step::Field(_, field) => push_name(out, &field.name),
        }
    }

    /// As in Go's type errors: names of fields only, with those of embedded structs.
    fn go(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.go(out);
        }
        if let Step::Field(_, field) = self.step {
            if !field.holder.is_empty() {
                push_name(out, field.holder);
            }
            push_name(out, &field.name);
        }
    }

    fn innermost(&self) -> Option<&Struct> {
        match self.step {
            Step::Field(of, _) => Some(of),
            _ => self.parent?.innermost(),
        }
    }
}

fn push_name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

impl<'s> Conform<'s> {
    pub(super) fn new(schemas: &'s Schemas, strict: bool) -> Self {
        Self { schemas, strict, found: Findings::default() }
    }

    fn fail(&mut self, text: impl Into<String>) -> Option<Value> {
        self.found.error.get_or_insert_with(|| text.into());
        None
    }

    fn mismatch(&mut self, what: &str, ty: &Type, at: Option<&Path>) -> Option<Value> {
        if self.found.error.is_none() {
            let go_type = go_type(self.schemas, ty);
            let text = match at.and_then(|path| Some((path, path.innermost()?))) {
                None => format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
                Some((path, of)) => {
                    let mut field = String::new();
                    path.go(&mut field);
                    format!(
                        "json: cannot unmarshal {what} into Go struct field {}.{field} of type \
                         {go_type}",
                        of.go_name()
                    )
                }
            };
            self.found.error = Some(text);
        }
        None
    }

    fn finding(&mut self, what: &str, name: &str, at: Option<&Path>) {
        if !self.strict || self.found.strict.len() >= STRICT_FINDINGS_MAX {
            return;
        }
        let mut path = String::new();
        if let Some(at) = at {
            at.text(&mut path);
        }
        push_name(&mut path, name);
        let text = format!("{what} field {path:?}");
        if !self.found.strict.contains(&text) {
            self.found.strict.push(text);
        }
    }

    /// The value, or `None` for `null` and for what was refused.
    pub(super) fn value(&mut self, node: Node, ty: &Type, at: Option<&Path>) -> Option<Value> {
        let node = match node {
            Node::Null => return None,
            Node::Plain(text) => scalars::resolve(text, ty),
            other => other,
        };
        match (ty, node) {
            (Type::Bool, Node::Bool(value)) => Some(Value::Bool(value)),
            (Type::String(_), Node::String(text)) => Some(Value::String(text.into_owned())),
            (Type::Int32 | Type::Int64, Node::Number(text)) => {
                match scalars::integer(&text, *ty == Type::Int32) {
                    Some(number) => Some(number.into()),
                    None => self.mismatch(&format!("number {text}"), ty, at),
                }
            }
            (Type::Double, Node::Number(text)) => match scalars::double(&text) {
                Some(number) => Some(number),
                None => self.mismatch(&format!("number {text}"), ty, at),
            },
            (Type::Struct(id), Node::Object(fields)) => {
                Some(self.object(fields, self.schemas.get(*id), at))
            }
            (Type::Map(map), Node::Object(entries)) => Some(self.map(entries, &map.item, at)),
            (Type::List(list), Node::Array(items)) => {
                let items = items.into_iter().enumerate().map(|(index, node)| {
                    let path = Path { parent: at, step: Step::Index(index) };
                    self.value(node, &list.item, Some(&path)).unwrap_or_else(|| zero(&list.item))
                });
                Some(Value::Array(items.collect()))
            }
            (Type::Any | Type::Fields, node) => match untyped(node, &mut |_, _| {}) {
                Ok(value) => Some(value),
                Err(text) => self.fail(text),
            },
            (Type::SchemaOr(or, id), node) => self.schema_or(*or, *id, node),
            (Type::Bytes, Node::String(text)) => match base64_text(&text) {
                Ok(text) => Some(Value::String(text)),
                Err(error) => self.fail(error),
            },
            (Type::Time | Type::MicroTime, Node::String(text)) => match scalars::time(&text, ty) {
                Ok(text) => Some(Value::String(text)),
                Err(error) => self.fail(error),
            },
            (Type::Quantity, Node::String(text) | Node::Number(text)) => {
                match scalars::quantity(&text) {
                    Ok(text) => Some(Value::String(text)),
                    Err(error) => self.fail(error),
                }
            }
            (Type::Quantity, _) => {
                let error = scalars::quantity("").err().unwrap_or_default();
                self.fail(error)
            }
            (Type::IntOrString, Node::String(text)) => Some(Value::String(text.into_owned())),
            (Type::IntOrString, Node::Number(text)) => match scalars::integer(&text, true) {
                Some(number) => Some(number.into()),
                None => self.mismatch(&format!("number {text}"), &Type::Int32, None),
            },
            // These read themselves in Go, so their errors do not know where they are.
            (Type::IntOrString, node) => self.mismatch(word(&node), &Type::Int32, None),
            (Type::Time | Type::MicroTime, node) => {
                self.mismatch(word(&node), &Type::String(""), None)
            }
            (ty, node) => self.mismatch(word(&node), ty, at),
        }
    }

    fn object(&mut self, fields: Vec<(Cow<str>, Node)>, of: &Struct, at: Option<&Path>) -> Value {
        let mut map = Map::new();
        let mut nulls: Vec<&str> = Vec::new();
        for (name, node) in fields {
            let Some(field) = of.field(&name) else {
                if of.preserve {
                    let value = untyped(node, &mut |_, _| {}).unwrap_or_default();
                    map.insert(name.into_owned(), value);
                } else {
                    self.finding("unknown", &name, at);
                }
                continue;
            };
            if map.contains_key(name.as_ref()) || nulls.contains(&field.name.as_ref()) {
                self.finding("duplicate", &name, at);
            }
            let path = Path { parent: at, step: Step::Field(of, field) };
            match self.value(node, &field.ty, Some(&path)) {
                Some(value) => {
                    map.insert(name.into_owned(), value);
                }
                None if field.nullable => {
                    map.insert(name.into_owned(), Value::Null);
                }
                None => nulls.push(&field.name),
            }
        }
        Value::Object(map)
    }

    fn map(&mut self, entries: Vec<(Cow<str>, Node)>, item: &Type, at: Option<&Path>) -> Value {
        let mut map = Map::new();
        for (name, node) in entries {
            if map.contains_key(name.as_ref()) {
                self.finding("duplicate", &name, at);
            }
            let path = Path { parent: at, step: Step::Key(&name) };
            let value = self.value(node, item, Some(&path)).unwrap_or_else(|| zero(item));
            map.insert(name.into_owned(), value);
        }
        Value::Object(map)
    }

    fn schema_or(&mut self, or: Or, id: u32, node: Node) -> Option<Value> {
        // A decoder of its own in Go: neither strict nor with a path.
        let strict = std::mem::replace(&mut self.strict, false);
        let item = match or {
            Or::Strings => Type::String(""),
            _ => Type::Struct(id),
        };
        let value = match node {
            Node::Object(_) => self.value(node, &Type::Struct(id), None),
            Node::Bool(value) if or == Or::Bool => Some(Value::Bool(value)),
            Node::Array(items) if or != Or::Bool => {
                let items = items
                    .into_iter()
                    .map(|node| self.value(node, &item, None).unwrap_or_else(|| zero(&item)));
                Some(Value::Array(items.collect()))
            }
            _ if or == Or::Bool => self.fail("boolean or JSON schema expected"),
            node => self.mismatch(word(&node), &Type::Struct(id), None),
        };
        self.strict = strict;
        value
    }
}

/// What Go calls a JSON value of the wrong type.
pub(super) fn word(node: &Node) -> &'static str {
    match node {
        Node::Null => "null",
        Node::Bool(_) => "bool",
        Node::Number(_) => "number",
        Node::String(_) | Node::Plain(_) => "string",
        Node::Array(_) => "array",
        Node::Object(_) => "object",
    }
}

/// What `null` means as an item of a list or a map.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::IntOrString => Value::from(0),
        Type::Double => Value::from(0.0),
        Type::String(_) | Type::Bytes => Value::from(""),
        Type::Quantity => Value::from("0"),
        Type::Struct(_) | Type::SchemaOr(..) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// Any JSON. Integers stay integers; `duplicate` hears of keys that come twice, with their depth
/// path as in `spec.a[0].`.
pub(super) fn untyped(
    node: Node,
    duplicate: &mut dyn FnMut(&[String], &str),
) -> Result<Value, String> {
    fn walk(
        node: Node,
        path: &mut Vec<String>,
        duplicate: &mut dyn FnMut(&[String], &str),
    ) -> Result<Value, String> {
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(value),
            Node::String(text) | Node::Plain(text) => Value::String(text.into_owned()),
            Node::Number(text) => scalars::number(&text).ok_or_else(|| {
                format!("json: cannot unmarshal number {text} into Go value of type float64")
            })?,
            Node::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    path.push(format!("[{index}]"));
                    list.push(walk(item, path, duplicate)?);
                    path.pop();
                }
                Value::Array(list)
            }
            Node::Object(fields) => {
                let mut map = Map::new();
                for (name, item) in fields {
                    if map.contains_key(name.as_ref()) {
                        duplicate(path, &name);
                    }
                    path.push(if path.is_empty() { name.to_string() } else { format!(".{name}") });
                    let value = walk(item, path, duplicate)?;
                    path.pop();
                    map.insert(name.into_owned(), value);
                }
                Value::Object(map)
            }
        })
    }
    walk(node, &mut Vec::new(), duplicate)
}

fn base64_text(text: &str) -> Result<String, String> {
    let engine = base64::engine::general_purpose::STANDARD;
    let clean: Cow<str> = match text.contains(['\r', '\n']) {
        true => text.replace(['\r', '\n'], "").into(),
        false => text.into(),
    };
    match engine.decode(clean.as_ref()) {
        Ok(_) => Ok(clean.into_owned()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => clean.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// A type as Go prints it.
fn go_type(schemas: &Schemas, ty: &Type) -> String {
    let word = match ty {
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Double => "float64",
        Type::String("") => "string",
        Type::String(name) => name,
        Type::Bytes => "[]uint8",
        Type::Time => "v1.Time",
        Type::MicroTime => "v1.MicroTime",
        Type::Quantity => "resource.Quantity",
        Type::IntOrString => "intstr.IntOrString",
        Type::Any => "runtime.RawExtension",
        Type::Fields => "v1.FieldsV1",
        Type::SchemaOr(_, id) | Type::Struct(id) => {
            let name = &schemas.get(*id).name;
            let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
            return name[start..].to_owned();
        }
        Type::List(list) => return format!("[]{}", go_type(schemas, &list.item)),
        Type::Map(map) if map.item == Type::Quantity => "v1.ResourceList",
        Type::Map(map) => return format!("map[string]{}", go_type(schemas, &map.item)),
    };
    word.to_owned()
}
