//! Reads `embedded/schema.txt`.
//!
//! Why text: it is compact (under 100 KB), its differences between two versions of Kubernetes can
//! be read, and it parses in a few milliseconds at the first use. `tests/it/schema_gen.rs` writes
//! it. One type is a line `core.v1.Pod @v1/Pod`, followed by `atomic` where server-side apply sees
//! one value; its fields are the indented lines below:
//!
//! ```text
//!  ports! []ServicePort 1 map(port,protocol) merge(port) ="a default in JSON"
//!  hostPath HostPathVolumeSource 2.1:VolumeSource     a field of an inlined message
//!  uid string:types.UID 5                             the Go name of a text
//! ```
//! `!` marks a required field, `?` one that can tell zero from nothing (a pointer in Go), `[]` a
//! list, `{}` a map, `-` a field that has no protobuf number.
//! A type without a dot is one of the words in `word` or a type of the same package.

use std::collections::HashMap;

use super::{Field, List, ListKind, MapOf, Name, Or, Strategy, Struct, Type};
use crate::object::{GroupVersion, Gvk};

/// The table of the built-in kinds.
pub(super) const BUILTIN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/embedded/schema.txt"));

/// `core.v1.Pod` -> `io.k8s.api.core.v1.Pod`.
pub(super) fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis.",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis.",
        _ => "io.k8s.api.",
    };
    format!("{prefix}{short}")
}

/// All types of a table. A line that cannot be read is a fault of the build: a test reads them all.
pub(super) fn parse(text: &'static str) -> Vec<Struct> {
    let headers = text.lines().filter(|line| !line.starts_with(' '));
    let ids: HashMap<&str, u32> =
        headers.filter_map(|line| line.split(' ').next()).zip(0u32..).collect();
    let mut all: Vec<Struct> = Vec::with_capacity(ids.len());
    let mut package = "";
    for line in text.lines() {
        match line.strip_prefix(' ') {
            None => {
                let (one, its_package) = header(line);
                package = its_package;
                all.push(one);
            }
            Some(rest) => {
                let reader = Reader { ids: &ids, package };
                if let (Some(field), Some(one)) = (reader.field(rest), all.last_mut()) {
                    one.fields.push(field);
                }
            }
        }
    }
    for one in &mut all {
        one.fields.shrink_to_fit();
    }
    all
}

fn header(line: &'static str) -> (Struct, &'static str) {
    let mut words = line.split(' ');
    let short = words.next().unwrap_or("");
    let mut one = Struct { name: full_name(short).into(), ..Struct::default() };
    for word in words {
        match word.strip_prefix('@').and_then(|kind| kind.rsplit_once('/')) {
            Some((api_version, kind)) => {
                if let Some(gv) = GroupVersion::parse(api_version) {
                    one.kinds.push(Gvk::new(gv.group, gv.version, kind));
                }
            }
            None => one.atomic |= word == "atomic",
        }
    }
    (one, short.rsplit_once('.').map_or("", |(package, _)| package))
}

struct Reader<'a> {
    ids: &'a HashMap<&'static str, u32>,
    package: &'static str,
}

impl Reader<'_> {
    fn field(&self, line: &'static str) -> Option<Field> {
        let (line, default) = match line.split_once(" =") {
            Some((line, json)) => (line, Some(Box::new(serde_json::from_str(json).ok()?))),
            None => (line, None),
        };
        let mut words = line.split(' ');
        let name = words.next()?;
        let mut ty = self.ty(words.next()?)?;
        let (path, holder) = {
            let word = words.next()?;
            word.split_once(':').unwrap_or((word, ""))
        };
        let mut numbers = [0; 3];
        if path != "-" {
            for (place, number) in numbers.iter_mut().zip(path.split('.')) {
                *place = number.parse().ok()?;
            }
        }
        let mut strategy: Option<Box<Strategy>> = None;
        let mut atomic = None;
        for word in words {
            let (word, inner) = match word.strip_suffix(')').and_then(|word| word.split_once('(')) {
                Some(parts) => parts,
                None => (word, ""),
            };
            match (word, &mut ty) {
                ("set", Type::List(list)) => list.kind = ListKind::Set,
                ("map", Type::List(list)) => {
                    list.kind = ListKind::Map(inner.split(',').map(Name::Borrowed).collect());
                }
                ("atomic", Type::Map(map)) => map.atomic = true,
                ("atomic", _) => atomic = Some(true),
                ("granular", _) => atomic = Some(false),
                (word, _) => {
                    let strategy = strategy.get_or_insert_default();
                    match word {
                        "merge" => (strategy.merge, strategy.key) = (true, inner.into()),
                        "retainKeys" => strategy.retain_keys = true,
                        "replace" => strategy.replace = true,
                        _ => return None,
                    }
                }
            }
        }
        Some(Field {
            name: name.trim_end_matches(['!', '?']).into(),
            ty,
            required: name.ends_with('!'),
            pointer: name.ends_with('?'),
            nullable: false,
            atomic,
            default,
            strategy,
            numbers,
            holder,
        })
    }

    fn ty(&self, text: &'static str) -> Option<Type> {
        if let Some(item) = text.strip_prefix("[]") {
            let item = self.ty(item)?;
            return Some(Type::List(Box::new(List { item, kind: ListKind::Atomic })));
        }
        if let Some(item) = text.strip_prefix("{}") {
            let item = self.ty(item)?;
            return Some(Type::Map(Box::new(MapOf { item, atomic: false })));
        }
        self.word(text)
    }

    fn word(&self, text: &'static str) -> Option<Type> {
        let schema = |or| {
            let id = self.ids.get("apiextensions.v1.JSONSchemaProps")?;
            Some(Type::SchemaOr(or, *id))
        };
        Some(match text {
            "bool" => Type::Bool,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "double" => Type::Double,
            "string" => Type::String(""),
            "bytes" => Type::Bytes,
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "Any" => Type::Any,
            "Fields" => Type::Fields,
            "SchemaOrBool" => return schema(Or::Bool),
            "SchemaOrArray" => return schema(Or::Array),
            "SchemaOrStrings" => return schema(Or::Strings),
            _ => {
                if let Some(go) = text.strip_prefix("string:") {
                    return Some(Type::String(go));
                }
                let id = match text.contains('.') {
                    true => self.ids.get(text)?,
                    false => self.ids.get(format!("{}.{text}", self.package).as_str())?,
                };
                Type::Struct(*id)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let all = parse(BUILTIN);
        let fields: usize = all.iter().map(|one| one.fields.len()).sum();
        assert_eq!(all.len() + fields, BUILTIN.lines().count());
        for one in &all {
            let mut sorted: Vec<_> = one.fields.iter().map(|field| &field.name).collect();
            sorted.sort();
            sorted.dedup();
            assert!(sorted.iter().eq(&one.fields.iter().map(|f| &f.name).collect::<Vec<_>>()));
        }
    }
}
