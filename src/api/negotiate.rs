//! Which form a client sends and wants: JSON, YAML or protobuf; whole, as a table, or metadata only.
//!
//! Why by a small parser of our own: upstream's rules have parameters (`as`, `g`, `v`, `stream`)
//! that no general library weighs as clients rely on.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::object::status::{Result, Status};

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Format {
    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What of an object is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it.
    Whole,
    /// Rows of a `meta.k8s.io` Table in this version.
    Table(String),
    /// Its metadata, in this version of `meta.k8s.io`.
    Metadata(String),
}

/// A client's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How it is written.
    pub format: Format,
    /// What is wanted.
    pub shape: Shape,
    /// With line breaks and indents.
    pub pretty: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { format: Format::Json, shape: Shape::Whole, pretty: false }
    }
}

/// One clause of an `Accept` header.
pub struct Clause<'a> {
    /// As in "application".
    pub kind: &'a str,
    /// As in "json".
    pub subtype: &'a str,
    /// Its parameters but `q`.
    pub params: Vec<(&'a str, &'a str)>,
    q: f32,
}

impl Clause<'_> {
    /// The value of a parameter, or "".
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of the `Accept` headers, most wanted first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut clauses: Vec<Clause<'_>> =
        texts.flat_map(|text| text.split(',')).filter_map(clause).collect();
    clauses.sort_by(|a, b| b.q.total_cmp(&a.q));
    clauses
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let mut clause = Clause { kind, subtype, params: Vec::new(), q: 1.0 };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "q" => clause.q = value.parse().unwrap_or(1.0),
            _ => clause.params.push((name, value)),
        }
    }
    Some(clause)
}

/// What the client accepts, given the formats that can be served. JSON is preferred where it is
/// accepted: it is what is stored.
pub fn accepted(headers: &HeaderMap, pretty: bool, served: &[Format]) -> Result<Wish> {
    accepted_in(headers, pretty, served, |_| true)
}

/// The same where not every shape can be served.
pub fn accepted_in(
    headers: &HeaderMap,
    pretty: bool,
    served: &[Format],
    has_shape: impl Fn(&Shape) -> bool,
) -> Result<Wish> {
    if !headers.contains_key(ACCEPT) {
        return Ok(Wish { pretty, ..Wish::default() });
    }
    let mut fallback = None;
    for clause in clauses(headers) {
        let Some(shape) = shape(&clause).filter(&has_shape) else { continue };
        for format in served.iter().copied() {
            if !matches(&clause, format) {
                continue;
            }
            let pretty = pretty || clause.param("pretty") == "1";
            let wish = Wish { format, shape: shape.clone(), pretty };
            if format == Format::Json || clause.kind != "application" || clause.subtype == "yaml" {
                return Ok(wish);
            }
            fallback.get_or_insert(wish);
            break;
        }
    }
    fallback.ok_or_else(|| not_acceptable(served))
}

/// 406 in upstream's words.
pub fn not_acceptable(served: &[Format]) -> Status {
    let known: Vec<&str> = served.iter().map(|format| format.content_type()).collect();
    Status::not_acceptable(format!(
        "only the following media types are accepted: {}",
        known.join(", ")
    ))
}

fn matches(clause: &Clause<'_>, format: Format) -> bool {
    let (kind, subtype) = format.content_type().split_once('/').unwrap_or_default();
    match (clause.kind, clause.subtype) {
        ("*", "*") => true,
        (have, "*") => have == kind,
        (have, sub) => have == kind && sub == subtype,
    }
}

/// `None` for an `as` that is not known: the clause is passed over.
fn shape(clause: &Clause<'_>) -> Option<Shape> {
    let version = clause.param("v").to_owned();
    let known = clause.param("g") == "meta.k8s.io" && ["v1", "v1beta1"].contains(&&*version);
    match clause.param("as") {
        "" => Some(Shape::Whole),
        "Table" if known => Some(Shape::Table(version)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" if known => {
            Some(Shape::Metadata(version))
        }
        _ => None,
    }
}

/// The format of a request's body.
pub fn content(headers: &HeaderMap) -> Result<Format> {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim();
    match media {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        _ => Err(unsupported(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ])),
    }
}

/// 415 in upstream's words.
pub fn unsupported(known: &[&str]) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Format] = &[Format::Json, Format::Yaml, Format::Protobuf];

    fn wish(accept: &str) -> Result<Wish> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        accepted(&headers, false, ALL)
    }

    #[test]
    fn kubectl_gets_a_table_and_generated_clients_get_json() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                       application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(wish(kubectl).unwrap().shape, Shape::Table("v1".to_owned()));
        let go = wish("application/vnd.kubernetes.protobuf,application/json").unwrap();
        assert_eq!((go.format, go.shape), (Format::Json, Shape::Whole));
        let only = wish("application/vnd.kubernetes.protobuf").unwrap();
        assert_eq!(only.format, Format::Protobuf);
        assert_eq!(wish("*/*").unwrap(), Wish::default());
        assert_eq!(wish("application/yaml").unwrap().format, Format::Yaml);
    }

    #[test]
    fn an_unknown_form_is_passed_over_or_refused() {
        assert_eq!(wish("application/json;as=Foo,application/json").unwrap(), Wish::default());
        let error = wish("text/plain").unwrap_err();
        assert_eq!(error.code, 406);
        assert_eq!(
            error.message,
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf"
        );
    }
}
