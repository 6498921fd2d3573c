//! The one module that reads YAML.
//!
//! Why its own visitor: serde_yaml's values forget duplicates, and aliases must not multiply
//! without a bound (CVE-2019-11253).

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::scan::Node;
use crate::stdx::limits::YAML_ALIAS_NODES_MAX;

/// The first document.
pub(super) fn parse(text: &[u8]) -> Result<Node<'static>, String> {
    match serde_yaml::Deserializer::from_slice(text).next() {
        Some(document) => read(document),
        None => Ok(Node::Null),
    }
}

/// Every document.
pub(super) fn parse_all(text: &[u8]) -> Result<Vec<Node<'static>>, String> {
    serde_yaml::Deserializer::from_slice(text).map(read).collect()
}

fn read(document: serde_yaml::Deserializer<'_>) -> Result<Node<'static>, String> {
    let nodes = Cell::new(0);
    Seed { nodes: &nodes }.deserialize(document).map_err(|error| error.to_string())
}

/// Counts the nodes of one document, aliases expanded.
#[derive(Clone, Copy)]
struct Seed<'c> {
    nodes: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'static>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > YAML_ALIAS_NODES_MAX {
            return Err(de::Error::custom("document contains excessive aliasing"));
        }
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'static>;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Node::Number(Cow::Owned(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Node::Number(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        match serde_json::Number::from_f64(value) {
            Some(_) => Ok(Node::Number(Cow::Owned(value.to_string()))),
            None => Err(E::custom(format!("json: unsupported value: {value}"))),
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Node::Plain(Cow::Owned(text.to_owned())))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        // A tag, as in `!!str 5` or `!custom {}`: the value counts, the tag does not.
        let (_, content) = data.variant::<Tag>()?;
        de::VariantAccess::newtype_variant_seed(content, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<(Cow<'static, str>, Node<'static>)> = Vec::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let value = entries.next_value_seed(self)?;
            let name = match key {
                Node::Plain(text) | Node::String(text) | Node::Number(text) => text,
                Node::Bool(value) => Cow::Owned(value.to_string()),
                _ => return Err(de::Error::custom("unsupported map key")),
            };
            match (name.as_ref(), value) {
                ("<<", Node::Object(from)) => merged.extend(from),
                ("<<", Node::Array(maps)) => {
                    for map in maps {
                        let Node::Object(from) = map else {
                            return Err(de::Error::custom("map merge requires map values"));
                        };
                        merged.extend(from);
                    }
                }
                (_, value) => fields.push((name, value)),
            }
        }
        // A merge key only fills in; what stands in the map itself wins, and the first map.
        if !merged.is_empty() {
            let mut known: HashSet<_> = fields.iter().map(|(name, _)| name.clone()).collect();
            for (name, value) in merged {
                if known.insert(name.clone()) {
                    fields.push((name, value));
                }
            }
        }
        Ok(Node::Object(fields))
    }
}

struct Tag;

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(source).map(|_| Tag)
    }
}
