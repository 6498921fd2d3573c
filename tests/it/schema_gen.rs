//! Writes `embedded/schema.txt` from a Kubernetes tree outside the repository.
//!
//! Why: the table holds facts (names, types, list kinds, merge keys, numbers, defaults) of
//! upstream's OpenAPI v3 documents, `generated.proto` and `types.go` files; reading them at
//! generation time keeps their prose out of this repository. Run it on a new version with
//! `KUBERNETES_TREE=/path cargo test --test it -- --ignored write_the_schema_table`; the format
//! is described in `src/object/schema/table.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// OpenAPI names beginning with the first part are written with the second.
const PREFIXES: [(&str, &str); 4] = [
    ("io.k8s.apimachinery.pkg.apis.", ""),
    ("io.k8s.apiextensions-apiserver.pkg.apis.", ""),
    ("io.k8s.kube-aggregator.pkg.apis.", ""),
    ("io.k8s.api.", ""),
];

/// Types that are one word of the table's language.
const WORDS: [(&str, &str); 10] = [
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "IntOrString"),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "Quantity"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "Time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "MicroTime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "Fields"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "Any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "Any"),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        "SchemaOrArray",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        "SchemaOrBool",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "SchemaOrStrings",
    ),
];

/// One field of a `generated.proto` message.
struct ProtoField {
    name: String,
    kind: String,
    number: u32,
}

/// Message name (as in `core.v1.Pod`) to its fields.
type Proto = BTreeMap<String, Vec<ProtoField>>;
/// (type name, JSON name) to the Go type: whether it is a pointer, and its name.
type GoTypes = BTreeMap<(String, String), (bool, String)>;

#[test]
#[ignore = "needs a Kubernetes tree: set KUBERNETES_TREE"]
fn write_the_schema_table() {
    let tree = std::env::var("KUBERNETES_TREE").expect("KUBERNETES_TREE names a Kubernetes tree");
    let tree = Path::new(&tree);
    let mut files = Vec::new();
    find(&tree.join("staging/src/k8s.io"), &mut files);
    let proto = read_proto(&files);
    let go = read_go(&files);
    let text = write_table(&read_openapi(tree), &proto, &go);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded/schema.txt");
    fs::write(path, text).expect("embedded/ can be written");
}

fn find(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, into);
        } else if path.file_name().is_some_and(|name| {
            name == "generated.proto" || name.to_string_lossy().starts_with("types")
        }) {
            into.push(path);
        }
    }
}

/// All schemas of the GA groups and versions; the kinds that each names are joined.
fn read_openapi(tree: &Path) -> BTreeMap<String, (Value, BTreeSet<String>)> {
    let mut all: BTreeMap<String, (Value, BTreeSet<String>)> = BTreeMap::new();
    let folder = tree.join("api/openapi-spec/v3");
    for entry in fs::read_dir(folder).expect("api/openapi-spec/v3").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.trim_end_matches("_openapi.json");
        let stable = stem
            .rsplit_once("__v")
            .is_some_and(|(_, version)| version.bytes().all(|byte| byte.is_ascii_digit()));
        if !stable || name.starts_with("openid") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("readable");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, schema) in schemas {
            let place =
                all.entry(name.clone()).or_insert_with(|| (schema.clone(), BTreeSet::new()));
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            for kind in kinds.into_iter().flatten() {
                let text = |key: &str| kind[key].as_str().unwrap_or("").to_owned();
                let (group, version) = (text("group"), text("version"));
                if version.contains("alpha") || version.contains("beta") {
                    continue;
                }
                let prefix = if group.is_empty() { version } else { format!("{group}/{version}") };
                place.1.insert(format!("{prefix}/{}", text("kind")));
            }
        }
    }
    all
}

/// `…/api/core/v1/generated.proto` -> `core.v1`.
fn package_of(path: &Path) -> String {
    let parts: Vec<_> =
        path.parent().into_iter().flatten().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join(".")
}

fn read_proto(files: &[PathBuf]) -> Proto {
    let mut all = Proto::new();
    for path in files.iter().filter(|path| path.ends_with("generated.proto")) {
        let package = package_of(path);
        let text = fs::read_to_string(path).expect("readable");
        let mut message = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ") {
                message = format!("{package}.{}", name.trim_end_matches([' ', '{']));
                all.insert(message.clone(), Vec::new());
            } else if line.starts_with("optional ")
                || line.starts_with("repeated ")
                || line.starts_with("map<")
            {
                let Some((left, number)) = line.trim_end_matches(';').split_once(" = ") else {
                    continue;
                };
                let (kind, name) = left.rsplit_once(' ').expect("a type and a name");
                let kind = kind.rsplit(' ').next().unwrap_or("").to_owned();
                let number = number.parse().expect("a field number");
                all.get_mut(&message).expect("inside a message").push(ProtoField {
                    name: name.to_owned(),
                    kind,
                    number,
                });
            }
        }
    }
    all
}

/// Go types of struct fields: type errors show their names, and a pointer tells 0 from nothing.
fn read_go(files: &[PathBuf]) -> GoTypes {
    let mut all = GoTypes::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "go")) {
        let package = package_of(path);
        let text = fs::read_to_string(path).expect("readable");
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("type ") {
                current = rest.split(' ').next().unwrap_or("").to_owned();
            }
            let Some((left, tags)) = line.split_once("`") else { continue };
            let Some((_, json)) = tags.split_once("json:\"") else { continue };
            let json = json.split(['"', ',']).next().unwrap_or("");
            let Some(kind) = left.split_whitespace().nth(1) else { continue };
            let name = kind.rsplit(['*', ']']).next().unwrap_or("");
            let key = (format!("{package}.{current}"), json.to_owned());
            all.insert(key, (kind.starts_with('*'), name.to_owned()));
        }
    }
    all
}

fn short(name: &str) -> String {
    for (long, brief) in PREFIXES {
        if let Some(rest) = name.strip_prefix(long) {
            return format!("{brief}{rest}");
        }
    }
    name.to_owned()
}

fn write_table(
    schemas: &BTreeMap<String, (Value, BTreeSet<String>)>,
    proto: &Proto,
    go: &GoTypes,
) -> String {
    let mut by_short = BTreeMap::new();
    for (name, entry) in schemas {
        if !is_word(name) && entry.0["type"] == "object" && !name.contains(".version.") {
            by_short.insert(short(name), entry);
        }
    }
    let mut out = String::new();
    for (name, (schema, kinds)) in by_short {
        out.push_str(&name);
        for kind in kinds {
            write!(out, " @{kind}").expect("a string takes all");
        }
        if schema["x-kubernetes-map-type"] == "atomic" {
            out.push_str(" atomic");
        }
        out.push('\n');
        let empty = serde_json::Map::new();
        for (field, schema_of) in schema["properties"].as_object().unwrap_or(&empty) {
            let required =
                schema["required"].as_array().is_some_and(|list| list.iter().any(|r| r == field));
            let known = schema["properties"].as_object().unwrap_or(&empty);
            let found = number_of(proto, known, &name, field);
            let line = write_field(&name, field, schema_of, required, found, go);
            out.push_str(&line);
        }
    }
    out
}

fn write_field(
    owner: &str,
    field: &str,
    schema: &Value,
    required: bool,
    found: Option<Found>,
    go: &GoTypes,
) -> String {
    let package = owner.rsplit_once('.').map_or("", |(package, _)| package);
    let holder = found.as_ref().map_or(owner, |found| found.holder.as_str());
    let nothing = (false, String::new());
    let (pointer, go_name) = go.get(&(holder.to_owned(), field.to_owned())).unwrap_or(&nothing);
    let scalar = reference_of(schema).is_none_or(is_word);
    let mark = match required {
        true => "!",
        false if *pointer && scalar => "?",
        false => "",
    };
    let mut line = format!(" {field}{mark} {}", type_of(schema, package, go_name));
    match &found {
        Some(Found { path, holder, .. }) if holder == owner => {
            write!(line, " {path}").expect("a string takes all");
        }
        Some(Found { path, holder, .. }) => {
            let holder = holder.rsplit('.').next().unwrap_or("");
            write!(line, " {path}:{holder}").expect("a string takes all");
        }
        // apiVersion and kind travel in the protobuf envelope.
        None => {
            assert!(matches!(field, "apiVersion" | "kind"), "{owner}.{field} has no number");
            line.push_str(" -");
        }
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => line.push_str(" set"),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().expect("keys");
            let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
            write!(line, " map({})", keys.join(",")).expect("a string takes all");
        }
        _ => {}
    }
    if let Some(kind) = schema["x-kubernetes-map-type"].as_str() {
        write!(line, " {kind}").expect("a string takes all");
    }
    for strategy in schema["x-kubernetes-patch-strategy"].as_str().unwrap_or("").split(',') {
        match (strategy, schema["x-kubernetes-patch-merge-key"].as_str()) {
            ("", _) => {}
            ("merge", Some(key)) => write!(line, " merge({key})").expect("a string takes all"),
            (other, _) => write!(line, " {other}").expect("a string takes all"),
        }
    }
    if let Some(default) = schema.get("default") {
        write!(line, " ={default}").expect("a string takes all");
    }
    line.push('\n');
    line
}

/// Where a JSON field lives on the wire.
struct Found {
    /// The numbers to follow (`2.1` through an inlined message).
    path: String,
    /// The message (and Go struct) that holds it.
    holder: String,
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn number_of(
    proto: &Proto,
    known: &serde_json::Map<String, Value>,
    message: &str,
    field: &str,
) -> Option<Found> {
    let fields = proto.get(message)?;
    let direct = fields.iter().find(|entry| plain(&entry.name) == plain(field));
    if let Some(entry) = direct {
        return Some(Found { path: entry.number.to_string(), holder: message.to_owned() });
    }
    let package = message.rsplit_once('.')?.0;
    // An embedded Go struct is a message field that JSON does not know.
    let embedded = |entry: &&ProtoField| !known.keys().any(|key| plain(key) == plain(&entry.name));
    for entry in fields.iter().filter(embedded) {
        let inner = format!("{package}.{}", entry.kind);
        if let Some(found) = number_of(proto, known, &inner, field) {
            let path = format!("{}.{}", entry.number, found.path);
            return Some(Found { path, ..found });
        }
    }
    None
}

fn reference_of(schema: &Value) -> Option<&str> {
    let reference = schema["$ref"].as_str().or(schema["allOf"][0]["$ref"].as_str())?;
    Some(reference.trim_start_matches("#/components/schemas/"))
}

fn is_word(name: &str) -> bool {
    WORDS.iter().any(|(long, _)| *long == name)
}

fn type_of(schema: &Value, package: &str, go_name: &str) -> String {
    if let Some(name) = reference_of(schema) {
        if let Some((_, word)) = WORDS.iter().find(|(long, _)| *long == name) {
            return (*word).to_owned();
        }
        let name = short(name);
        return match name.rsplit_once('.') {
            Some((its, local)) if its == package => local.to_owned(),
            _ => name,
        };
    }
    if schema.get("items").is_some() {
        return format!("[]{}", type_of(&schema["items"], package, go_name));
    }
    if schema.get("additionalProperties").is_some() {
        // Named Go types of maps are maps; their name says nothing of the values.
        return format!("{{}}{}", type_of(&schema["additionalProperties"], package, ""));
    }
    let word = match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => "bytes",
        (Some("string"), _) => "string",
        (Some("integer"), Some("int32")) => "int32",
        (Some("integer"), _) => "int64",
        (Some("number"), _) => "double",
        (Some("boolean"), _) => "bool",
        other => panic!("no word for {other:?}"),
    };
    match go_name {
        _ if word != "string" => word.to_owned(),
        "types.UID" => format!("{word}:{go_name}"),
        name if !name.starts_with(|first: char| first.is_ascii_uppercase()) => word.to_owned(),
        name => format!("{word}:{}.{name}", package.rsplit('.').next().unwrap_or("")),
    }
}
