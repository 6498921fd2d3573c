//! The schema table: every type's fields, list kinds, merge keys, protobuf numbers and defaults.
//!
//! Why: one table drives decoding, pruning, defaulting, the patches, protobuf and OpenAPI, for
//! built-in kinds and custom resources by the same code. No kind has plumbing of its own.

pub mod decode;
mod docs;
pub mod encode;
pub mod openapi;
mod shape;
mod table;
mod wire;
mod yaml_out;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::{Gvk, Value};

/// A name in the table: borrowed from the program for built-in kinds.
pub type Name = Cow<'static, str>;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// A number.
    Double,
    /// A text; the Go name of its type, "" when it is a plain `string`.
    String(&'static str),
    /// Base64 text.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with six digits.
    MicroTime,
    /// A resource quantity, as in `100m`.
    Quantity,
    /// An integer or a text.
    IntOrString,
    /// Any JSON.
    Any,
    /// A `FieldsV1` set.
    Fields,
    /// `JSONSchemaProps` (the struct) or something simpler in its place.
    SchemaOr(Or, u32),
    /// The struct of that number.
    Struct(u32),
    /// A list.
    List(Box<List>),
    /// A map with text keys.
    Map(Box<MapOf>),
}

/// What may stand instead of a `JSONSchemaProps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Or {
    /// A boolean.
    Bool,
    /// A list of schemas.
    Array,
    /// A list of texts.
    Strings,
}

/// A list and how its items are told apart.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The items.
    pub item: Type,
    /// Atomic, set or map.
    pub kind: ListKind,
}

/// How lists merge in server-side apply.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind {
    /// One value.
    Atomic,
    /// Each scalar item is its own key.
    Set,
    /// These fields of an item are its key.
    Map(Vec<Name>),
}

/// A map's values.
#[derive(Debug, Clone, PartialEq)]
pub struct MapOf {
    /// The values.
    pub item: Type,
    /// Whether it is one value in server-side apply.
    pub atomic: bool,
}

/// How a strategic merge patch treats a field; all false: replace lists, merge maps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strategy {
    /// Lists merge, by `key` or as sets of scalars.
    pub merge: bool,
    /// `$retainKeys` is understood.
    pub retain_keys: bool,
    /// A map is replaced as a whole.
    pub replace: bool,
    /// The merge key of a list, "" when its items are scalars.
    pub key: Name,
}

/// A field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its JSON name.
    pub name: Name,
    /// Its type.
    pub ty: Type,
    /// Whether OpenAPI lists it as required.
    pub required: bool,
    /// Whether an explicit zero differs from nothing (protobuf sends zeros either way).
    pub pointer: bool,
    /// Whether `null` is a value (custom resources only).
    pub nullable: bool,
    /// Overrides the struct's own `atomic` (`x-kubernetes-map-type` on the field).
    pub atomic: Option<bool>,
    /// The default.
    pub default: Option<Box<Value>>,
    /// Strategic merge.
    pub strategy: Option<Box<Strategy>>,
    /// Protobuf numbers, outermost first: several for a field of an inlined message; 0 = none.
    pub numbers: [u16; 3],
    /// The Go struct that is inlined here and holds the field, or "".
    pub holder: &'static str,
}

/// An object with known fields.
#[derive(Debug, Clone, Default)]
pub struct Struct {
    /// The full name, as in `io.k8s.api.core.v1.Pod`; "" for parts of custom resources.
    pub name: Name,
    /// The kinds that it is the root of.
    pub kinds: Vec<Gvk>,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Whether server-side apply sees one value.
    pub atomic: bool,
    /// Whether unknown fields are kept.
    pub preserve: bool,
    /// Whether it is a whole object inside another (`x-kubernetes-embedded-resource`).
    pub embedded: bool,
}

impl Struct {
    /// The field of that JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        self.fields.get(index)
    }

    /// The name in Go's error texts, as in `DeploymentSpec`.
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or("")
    }
}

/// A set of types that refer to each other.
#[derive(Debug, Default)]
pub struct Schemas {
    structs: Vec<Struct>,
    by_name: HashMap<Name, u32>,
    by_kind: HashMap<Gvk, u32>,
}

/// The built-in kinds of Kubernetes.
pub fn builtin() -> &'static Schemas {
    static TABLE: OnceLock<Schemas> = OnceLock::new();
    TABLE.get_or_init(|| Schemas::new(table::parse(table::BUILTIN)))
}

impl Schemas {
    /// Indexes structs; their numbers are their positions.
    pub fn new(structs: Vec<Struct>) -> Self {
        let mut by_name = HashMap::with_capacity(structs.len());
        let mut by_kind = HashMap::new();
        for (id, one) in (0u32..).zip(&structs) {
            by_name.insert(one.name.clone(), id);
            for kind in &one.kinds {
                by_kind.insert(kind.clone(), id);
            }
        }
        Self { structs, by_name, by_kind }
    }

    /// The type of a kind.
    pub fn root(&self, gvk: &Gvk) -> Option<Root<'_>> {
        let (kind, &id) = self.by_kind.get_key_value(gvk)?;
        Some(Root { schemas: self, id, kind: Some(kind) })
    }

    /// The type of a full name (`io.k8s.api.core.v1.PodSpec`) or a short one (`core.v1.PodSpec`).
    pub fn root_by_name(&self, name: &str) -> Option<Root<'_>> {
        let id = match self.by_name.get(name) {
            Some(id) => *id,
            None => *self.by_name.get(table::full_name(name).as_str())?,
        };
        let kinds = &self.get(id).kinds;
        let kind = if let [only] = kinds.as_slice() { Some(only) } else { None };
        Some(Root { schemas: self, id, kind })
    }

    /// Every type's full name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.structs.iter().map(|one| one.name.as_ref())
    }

    /// Every kind that has a type.
    pub fn kinds(&self) -> impl Iterator<Item = &Gvk> {
        self.by_kind.keys()
    }

    /// The struct of that number.
    pub fn get(&self, id: u32) -> &Struct {
        &self.structs[id as usize]
    }
}

/// The type of a whole value: a struct in its set.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The set.
    pub schemas: &'a Schemas,
    /// The struct's number.
    pub id: u32,
    /// The kind it was asked for by, or its only one.
    pub kind: Option<&'a Gvk>,
}

impl<'a> Root<'a> {
    /// The struct.
    pub fn get(&self) -> &'a Struct {
        self.schemas.get(self.id)
    }

    /// The kind's name for error texts.
    pub fn kind_name(&self) -> &'a str {
        self.kind.map_or_else(|| self.get().go_name(), |kind| kind.kind.as_str())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod beside_others;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_kinds_fields_and_keys() {
        let root = builtin().root(&Gvk::new("", "v1", "Service")).unwrap();
        let spec = builtin().root_by_name("core.v1.ServiceSpec").unwrap();
        assert_eq!(root.get().field("spec").unwrap().ty, Type::Struct(spec.id));
        let ports = spec.get().field("ports").unwrap();
        let Type::List(list) = &ports.ty else { panic!("{ports:?}") };
        assert_eq!(list.kind, ListKind::Map(vec!["port".into(), "protocol".into()]));
        let strategy = ports.strategy.as_ref().unwrap();
        assert!(strategy.merge && strategy.key == "port");
        let port = builtin().root_by_name("io.k8s.api.core.v1.ServicePort").unwrap();
        let protocol = port.get().field("protocol").unwrap();
        assert_eq!(protocol.default.as_deref(), Some(&Value::from("TCP")));
        assert_eq!(protocol.numbers, [2, 0, 0]);
        let volume = builtin().root_by_name("core.v1.Volume").unwrap();
        let host_path = volume.get().field("hostPath").unwrap();
        assert_eq!((host_path.numbers, host_path.holder), ([2, 1, 0], "VolumeSource"));
        assert!(builtin().root(&Gvk::new("", "v1", "Deployment")).is_none());
        assert!(
            builtin().root(&Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler")).is_some()
        );
    }
}
