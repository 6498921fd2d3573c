//! From a request's body to an object of a type: JSON, YAML, protobuf.
//!
//! Why together: whatever the encoding, the same table says what is known, what is refused (in
//! upstream's words) and which form of a scalar is canonical.

mod conform;
mod protobuf;
mod scalars;
mod scan;
mod yaml;

use std::borrow::Cow;

pub use self::protobuf::protobuf;

use self::conform::Conform;
use self::scan::Node;
use super::{Root, Schemas, Type};
use crate::object::{GroupVersion, Gvk, Status, Value};

/// What to do about unknown and duplicate fields (`?fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse them.
    Strict,
}

/// An object and what its author should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object: known fields, canonical scalars, no `null` where Go knows none.
    pub value: Value,
    /// Texts for `Warning:` headers.
    pub warnings: Vec<String>,
}

/// Decodes JSON. Without a type, any JSON object is taken (a custom resource, a patch).
pub fn json(body: &[u8], root: Option<Root>, how: Validation) -> Result<Decoded, Status> {
    let node = scan::json(body).map_err(|error| {
        let text = format!("couldn't get version/kind; json parse error: {error}");
        unrecognized(root, &text, body)
    })?;
    object(node, root, how, body)
}

/// Decodes the first document of a YAML stream. Scalars follow YAML 1.1, as kubectl reads them.
pub fn yaml(body: &[u8], root: Option<Root>, how: Validation) -> Result<Decoded, Status> {
    let node =
        yaml::parse(body).map_err(|error| unrecognized(root, &format!("yaml: {error}"), body))?;
    object(node, root, how, body)
}

/// All documents of a YAML stream (a manifest file), without a type.
pub fn yaml_documents(body: &[u8]) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for node in yaml::parse_all(body)? {
        if node != Node::Null {
            all.push(conform::untyped(node, &mut |_, _| {})?);
        }
    }
    Ok(all)
}

/// Checks an object that was made here, by a patch: types, unknown fields, canonical scalars. The
/// error is the bare text; its place is the caller's to say.
pub fn value(value: Value, root: Root, how: Validation) -> Result<Decoded, String> {
    conformed(node_of(value), root, how)
}

/// What Go calls a JSON value in its type errors.
pub fn json_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn node_of(value: Value) -> Node<'static> {
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => Node::Number(Cow::Owned(number.to_string())),
        Value::String(text) => Node::String(Cow::Owned(text)),
        Value::Array(items) => Node::Array(items.into_iter().map(node_of).collect()),
        Value::Object(map) => Node::Object(
            map.into_iter().map(|(name, value)| (Cow::Owned(name), node_of(value))).collect(),
        ),
    }
}

fn object(node: Node, root: Option<Root>, how: Validation, body: &[u8]) -> Result<Decoded, Status> {
    let Some(root) = root else {
        return free_form(node, how).map_err(Status::bad_request);
    };
    let named = named_kind(&node).map_err(|error| unrecognized(Some(root), &error, body))?;
    let said = actual_kind(named, root);
    let wrong = |error: &str| {
        Status::bad_request(match &said {
            Some(said) => format!(
                "{} in version {:?} cannot be handled as a {}: {error}",
                said.kind,
                said.version,
                root.kind_name()
            ),
            None => error.to_owned(),
        })
    };
    if let (Some(said), Some(expected)) = (&said, root.kind) {
        check_kind(root.schemas, said, expected).map_err(|error| match error {
            Mismatch::Kind(text) => wrong(&text),
            Mismatch::Version(text) => Status::bad_request(text),
        })?;
    }
    let mut decoded = conformed(node, root, how).map_err(|error| wrong(&error))?;
    if let (Some(expected), Value::Object(map)) = (root.kind, &mut decoded.value) {
        map.insert("apiVersion".to_owned(), expected.api_version().into());
        map.insert("kind".to_owned(), expected.kind.clone().into());
    }
    Ok(decoded)
}

fn conformed(node: Node, root: Root, how: Validation) -> Result<Decoded, String> {
    let mut walk = Conform::new(root.schemas, how != Validation::Ignore);
    let value = walk.value(node, &Type::Struct(root.id), None);
    let found = walk.found;
    if let Some(error) = found.error {
        return Err(error);
    }
    finish(value.unwrap_or_else(|| Value::Object(Default::default())), found.strict, how)
}

fn finish(value: Value, strict: Vec<String>, how: Validation) -> Result<Decoded, String> {
    if how == Validation::Strict && !strict.is_empty() {
        return Err(format!("strict decoding error: {}", strict.join(", ")));
    }
    Ok(Decoded { value, warnings: strict })
}

fn free_form(node: Node, how: Validation) -> Result<Decoded, String> {
    if !matches!(node, Node::Object(_) | Node::Array(_)) {
        let what = conform::word(&node);
        return Err(format!(
            "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        ));
    }
    let mut strict = Vec::new();
    let value = conform::untyped(node, &mut |path, name| {
        let dot = if path.is_empty() { "" } else { "." };
        let text = format!("duplicate field {:?}", format!("{}{dot}{name}", path.concat()));
        if how != Validation::Ignore && !strict.contains(&text) {
            strict.push(text);
        }
    })?;
    finish(value, strict, how)
}

/// `apiVersion` and `kind` as the body has them, "" when absent.
fn named_kind<'n>(node: &'n Node) -> Result<(&'n str, &'n str), String> {
    let fields = match node {
        Node::Object(fields) => fields.as_slice(),
        Node::Null => &[],
        other => {
            let what = conform::word(other);
            return Err(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into \
                 Go value of type struct {{ APIVersion string \
                 \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                 \"json:\\\"kind,omitempty\\\"\" }}"
            ));
        }
    };
    let mut found = ["", ""];
    for (place, wanted) in found.iter_mut().zip(["apiVersion", "kind"]) {
        for (_, node) in fields.iter().filter(|(name, _)| name == wanted) {
            match node {
                Node::String(text) | Node::Plain(text) => *place = text,
                Node::Null => {}
                other => {
                    let what = conform::word(other);
                    return Err(format!(
                        "couldn't get version/kind; json parse error: json: cannot unmarshal \
                         {what} into Go struct field .{wanted} of type string"
                    ));
                }
            }
        }
    }
    let [api_version, kind] = found;
    if !api_version.is_empty() && GroupVersion::parse(api_version).is_none() {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    }
    Ok((api_version, kind))
}

/// What the body says it is; what it leaves out is as expected.
fn actual_kind((api_version, kind): (&str, &str), root: Root) -> Option<Gvk> {
    let expected = root.kind;
    let kind = if kind.is_empty() { expected?.kind.as_str() } else { kind };
    let version = match GroupVersion::parse(api_version) {
        Some(version) => version,
        None => expected?.group_version(),
    };
    Some(Gvk::new(version.group, version.version, kind))
}

enum Mismatch {
    Kind(String),
    Version(String),
}

/// A body may only be of the kind and version that the path serves.
fn check_kind(schemas: &Schemas, said: &Gvk, expected: &Gvk) -> Result<(), Mismatch> {
    if said == expected {
        return Ok(());
    }
    if schemas.root(said).is_none() {
        return Err(Mismatch::Kind(format!(
            "no kind {:?} is registered for version {:?} in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\"",
            said.kind,
            said.api_version()
        )));
    }
    if said.kind == expected.kind {
        return Err(Mismatch::Version(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            said.api_version(),
            expected.api_version()
        )));
    }
    let group = if expected.group.is_empty() { "core" } else { expected.group.as_str() };
    Err(Mismatch::Kind(format!(
        "converting ({}.{}) to ({}.{}): unknown conversion",
        said.version,
        said.kind,
        group.split('.').next().unwrap_or(group),
        expected.kind
    )))
}

/// Upstream's answer when not even the kind could be read: it quotes the body's beginning.
fn unrecognized(root: Option<Root>, error: &str, body: &[u8]) -> Status {
    const SHOWN: usize = 30;
    let Some(root) = root else { return Status::bad_request(error) };
    let shown = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let summary = match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({summary})",
        root.kind_name()
    ))
}

#[cfg(test)]
mod tests;
