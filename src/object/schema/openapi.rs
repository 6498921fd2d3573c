//! OpenAPI documents from the table: `/openapi/v3/…` and the definitions of `/openapi/v2`.
//!
//! Why built when asked: the texts of a thousand fields weigh megabytes, and few clients ask. The
//! caller keeps the bytes compressed. kubectl reads from these documents what `explain` shows,
//! whether the server validates fields itself (the `fieldValidation` parameter of `PATCH`), and how
//! client-side apply merges lists.

use std::collections::BTreeMap;

use serde_json::json;

use super::docs::{self, Docs};
use super::{Field, ListKind, Schemas, Struct, Type, builtin};
use crate::object::{Gvk, Map, Value};

/// Types that every group's document names.
const COMMON: [&str; 4] =
    ["meta.v1.Status", "meta.v1.APIResourceList", "meta.v1.DeleteOptions", "meta.v1.WatchEvent"];

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// One resource as a document's paths show it.
#[derive(Debug, Clone)]
pub struct Resource<'a> {
    /// The plural name, with a subresource if it is one: `pods`, `pods/status`.
    pub path: &'a str,
    /// The kind that it takes and returns.
    pub kind: &'a Gvk,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// As in discovery: get, list, create, update, patch, delete, deletecollection.
    pub verbs: &'a [&'a str],
}

/// `/openapi/v3` of one group and version.
pub fn v3_document(group: &str, version: &str, release: &str, served: &[Resource]) -> Value {
    let prefix = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths(&prefix, served),
        "components": {
            "schemas": v3_schemas(group, version, served.iter().map(|one| one.kind)),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header",
                "name": "authorization", "description": "Bearer Token authentication"}},
        },
    })
}

/// `components.schemas`: the kinds of a group and version, those of other groups that it serves
/// (a Deployment's Scale), and all that they reach.
pub fn v3_schemas<'g>(group: &str, version: &str, served: impl Iterator<Item = &'g Gvk>) -> Value {
    let schemas = builtin();
    let served: Vec<&Gvk> = served.collect();
    let shown = |gvk: &Gvk| (gvk.group == group && gvk.version == version) || served.contains(&gvk);
    let kinds: Vec<&Gvk> = schemas.kinds().filter(|gvk| shown(gvk)).collect();
    let mut groups: Vec<String> = kinds.iter().map(|gvk| gvk.api_version()).collect();
    groups.sort();
    groups.dedup();
    let writer = Writer { schemas, docs: docs::of(&groups), style: Style::V3 };
    let roots = kinds.into_iter().filter_map(|gvk| schemas.root(gvk));
    let common = COMMON.iter().filter_map(|name| schemas.root_by_name(name));
    let mut out = writer.reached(roots.chain(common).map(|root| root.id).collect(), &shown);
    out.insert(PATCH.to_owned(), writer.word(PATCH));
    Value::Object(out)
}

/// `definitions` of `/openapi/v2`: every type.
pub fn v2_definitions() -> Value {
    let schemas = builtin();
    let writer = Writer { schemas, docs: docs::of(&[]), style: Style::V2 };
    let all = schemas.names().filter_map(|name| schemas.root_by_name(name));
    let mut out = writer.reached(all.map(|root| root.id).collect(), &|_| true);
    out.insert(PATCH.to_owned(), writer.word(PATCH));
    Value::Object(out)
}

/// The paths of resources, with what clients look for in them.
pub fn paths(prefix: &str, served: &[Resource]) -> Value {
    let mut all: BTreeMap<String, Map> = BTreeMap::new();
    for resource in served {
        let (plural, subresource) = match resource.path.split_once('/') {
            Some((plural, subresource)) => (plural, Some(subresource)),
            None => (resource.path, None),
        };
        let collection = match resource.namespaced {
            true => format!("{prefix}/namespaces/{{namespace}}/{plural}"),
            false => format!("{prefix}/{plural}"),
        };
        let one = match subresource {
            Some(subresource) => format!("{collection}/{{name}}/{subresource}"),
            None => format!("{collection}/{{name}}"),
        };
        for verb in resource.verbs {
            let (path, method) = match *verb {
                "list" => (&collection, "get"),
                "create" if subresource.is_none() => (&collection, "post"),
                "deletecollection" => (&collection, "delete"),
                "create" => (&one, "post"),
                "get" => (&one, "get"),
                "update" => (&one, "put"),
                "patch" => (&one, "patch"),
                "delete" => (&one, "delete"),
                _ => continue,
            };
            let place = all.entry(path.clone()).or_default();
            place.insert(method.to_owned(), operation(resource, verb, method));
            if resource.namespaced && *verb == "list" {
                let everywhere = all.entry(format!("{prefix}/{plural}")).or_default();
                everywhere.insert("get".to_owned(), operation(resource, verb, "get"));
            }
        }
    }
    for (path, operations) in &mut all {
        let names =
            ["namespace", "name"].iter().filter(|name| path.contains(&format!("{{{name}}}")));
        let parameters: Vec<Value> = names
            .map(|name| {
                json!({"name": name, "in": "path", "required": true,
                "schema": {"type": "string", "uniqueItems": true}})
            })
            .collect();
        if !parameters.is_empty() {
            operations.insert("parameters".to_owned(), parameters.into());
        }
    }
    all.into_iter().map(|(path, operations)| (path, Value::Object(operations))).collect()
}

fn operation(resource: &Resource, verb: &str, method: &str) -> Value {
    let kind = resource.kind;
    let name = builtin().root(kind).map(|root| root.get().name.clone().into_owned());
    let name = match (verb, name) {
        ("list", Some(name)) => Some(format!("{name}List")),
        ("delete" | "deletecollection", _) => Some(STATUS.to_owned()),
        (_, name) => name,
    };
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut responses =
        json!({"200": {"description": "OK"}, "401": {"description": "Unauthorized"}});
    if let Some(name) = &name {
        responses["200"]["content"] = json!({"application/json": {"schema": schema(name)}});
    }
    let writes = matches!(method, "post" | "put" | "patch");
    let mut parameters = vec!["pretty"];
    if writes {
        parameters.extend(["dryRun", "fieldManager", "fieldValidation"]);
    }
    if method == "patch" {
        parameters.push("force");
    }
    let parameters: Vec<Value> = parameters
        .into_iter()
        .map(|name| {
            let ty = if name == "force" { "boolean" } else { "string" };
            json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
        })
        .collect();
    let action = match (verb, method) {
        ("create", _) => "post",
        ("update", _) => "put",
        (verb, _) => verb,
    };
    let mut out = json!({
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": kind.group, "version": kind.version, "kind": kind.kind},
    });
    if writes {
        let (types, name): (&[&str], _) = match method {
            "patch" => (&PATCH_TYPES, Some(PATCH.to_owned())),
            _ => (&["*/*"], name),
        };
        let schema = name.as_deref().map(schema).unwrap_or_else(|| json!({}));
        let content: Map =
            types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
        out["requestBody"] = json!({"content": content, "required": true});
    }
    out
}

const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

#[derive(Clone, Copy, PartialEq)]
enum Style {
    V2,
    V3,
}

struct Writer<'s> {
    schemas: &'s Schemas,
    docs: BTreeMap<String, Docs>,
    style: Style,
}

impl Writer<'_> {
    /// The schemas of structs and of all that they name.
    fn reached(&self, mut wanted: Vec<u32>, ours: &dyn Fn(&Gvk) -> bool) -> Map {
        let mut out = Map::new();
        while let Some(id) = wanted.pop() {
            let of = self.schemas.get(id);
            if out.contains_key(of.name.as_ref()) {
                continue;
            }
            out.insert(of.name.clone().into_owned(), self.object(of, ours));
            for field in &of.fields {
                self.names_in(&field.ty, of, &mut wanted, &mut out);
            }
        }
        out
    }

    fn names_in(&self, ty: &Type, of: &Struct, wanted: &mut Vec<u32>, out: &mut Map) {
        match ty {
            Type::Struct(id) => wanted.push(*id),
            Type::List(list) => self.names_in(&list.item, of, wanted, out),
            Type::Map(map) => self.names_in(&map.item, of, wanted, out),
            ty => {
                if let Type::SchemaOr(_, id) = ty {
                    wanted.push(*id);
                }
                if let Some(name) = word_name(ty, of)
                    && !out.contains_key(&name)
                {
                    out.insert(name.clone(), self.word(&name));
                }
            }
        }
    }

    fn object(&self, of: &Struct, ours: &dyn Fn(&Gvk) -> bool) -> Value {
        let docs = self.docs.get(of.name.as_ref());
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        let text = docs.and_then(|docs| docs.text.clone()).or_else(|| {
            let item = of.go_name().strip_suffix("List")?;
            (!of.kinds.is_empty()).then(|| format!("{item}List is a list of {item}."))
        });
        if let Some(text) = text {
            put("description", text.into());
        }
        put("type", "object".into());
        if !of.fields.is_empty() {
            let fields = of.fields.iter().map(|field| {
                let name = field.name.as_ref();
                let text = match docs {
                    Some(docs) => docs.fields.get(name).map(String::as_str),
                    None => self.text_of_list(name),
                };
                (name.to_owned(), self.field(field, of, text))
            });
            put("properties", Value::Object(fields.collect()));
        }
        let required: Vec<&str> =
            of.fields.iter().filter(|field| field.required).map(|f| f.name.as_ref()).collect();
        if !required.is_empty() {
            put("required", required.into());
        }
        let kinds: Vec<Value> = of
            .kinds
            .iter()
            .filter(|gvk| ours(gvk))
            .map(|gvk| json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version}))
            .collect();
        if !kinds.is_empty() {
            put("x-kubernetes-group-version-kind", kinds.into());
        }
        if of.atomic {
            put("x-kubernetes-map-type", "atomic".into());
        }
        Value::Object(out)
    }

    /// The dependency has one generic list; its fields are described here.
    fn text_of_list(&self, name: &str) -> Option<&str> {
        match name {
            "items" => Some("The objects of this page."),
            "metadata" => Some("The list's revision, and how to read on where there is more."),
            name => self.docs.get(STATUS)?.fields.get(name).map(String::as_str),
        }
    }

    fn field(&self, field: &Field, of: &Struct, text: Option<&str>) -> Value {
        let mut schema = self.ty(&field.ty, of);
        let default = field.default.as_deref().filter(|_| self.style == Style::V3);
        if self.style == Style::V3
            && schema.get("$ref").is_some()
            && (text.is_some() || default.is_some())
        {
            // Nothing may stand beside a reference in OpenAPI v3.
            schema = json!({"allOf": [schema]});
        }
        let Value::Object(map) = &mut schema else { return schema };
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        if let Some(text) = text {
            put("description", text.into());
        }
        if let Some(default) = default {
            put("default", default.clone());
        }
        if let Some(atomic) = field.atomic {
            put("x-kubernetes-map-type", if atomic { "atomic" } else { "granular" }.into());
        }
        if let Some(strategy) = &field.strategy {
            let flags = [
                (strategy.merge, "merge"),
                (strategy.retain_keys, "retainKeys"),
                (strategy.replace, "replace"),
            ];
            let words: Vec<&str> =
                flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
            put("x-kubernetes-patch-strategy", words.join(",").into());
            if !strategy.key.is_empty() {
                put("x-kubernetes-patch-merge-key", strategy.key.clone().into());
            }
        }
        schema
    }

    fn reference(&self, name: &str) -> Value {
        let place = match self.style {
            Style::V2 => "#/definitions/",
            Style::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{place}{name}")})
    }

    fn ty(&self, ty: &Type, of: &Struct) -> Value {
        if let Some(name) = word_name(ty, of) {
            return self.reference(&name);
        }
        match ty {
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::String(_) => json!({"type": "string"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Struct(id) => self.reference(&self.schemas.get(*id).name),
            Type::Map(map) => {
                let mut out =
                    json!({"type": "object", "additionalProperties": self.ty(&map.item, of)});
                if map.atomic {
                    out["x-kubernetes-map-type"] = "atomic".into();
                }
                out
            }
            Type::List(list) => {
                let mut out = json!({"type": "array", "items": self.ty(&list.item, of)});
                let kind = match &list.kind {
                    ListKind::Atomic => "atomic",
                    ListKind::Set => "set",
                    ListKind::Map(keys) => {
                        out["x-kubernetes-list-map-keys"] = json!(keys);
                        "map"
                    }
                };
                // The items of a list kind have no list type upstream.
                if of.kinds.is_empty() || !of.go_name().ends_with("List") {
                    out["x-kubernetes-list-type"] = kind.into();
                }
                out
            }
            _ => json!({}),
        }
    }

    /// The schema of a type that is one word in the table.
    fn word(&self, name: &str) -> Value {
        let mut schema = match (name.rsplit('.').next().unwrap_or(""), self.style) {
            ("Quantity", Style::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            ("IntOrString", Style::V3) => json!({"format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            ("IntOrString", Style::V2) => json!({"type": "string", "format": "int-or-string"}),
            ("Quantity", Style::V2) => json!({"type": "string"}),
            ("Time" | "MicroTime", _) => json!({"type": "string", "format": "date-time"}),
            ("RawExtension" | "FieldsV1" | "Patch", _) => json!({"type": "object"}),
            _ => json!({}),
        };
        if let Some(text) = self.docs.get(name).and_then(|docs| docs.text.clone()) {
            schema["description"] = text.into();
        }
        schema
    }
}

/// The full name of a type that is one word in the table.
fn word_name(ty: &Type, of: &Struct) -> Option<String> {
    const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    const MACHINERY: &str = "io.k8s.apimachinery.pkg";
    Some(match ty {
        Type::Time => format!("{MACHINERY}.apis.meta.v1.Time"),
        Type::MicroTime => format!("{MACHINERY}.apis.meta.v1.MicroTime"),
        Type::Fields => format!("{MACHINERY}.apis.meta.v1.FieldsV1"),
        Type::Quantity => format!("{MACHINERY}.api.resource.Quantity"),
        Type::IntOrString => format!("{MACHINERY}.util.intstr.IntOrString"),
        Type::Any if of.name.starts_with(EXTENSIONS) => format!("{EXTENSIONS}.JSON"),
        Type::Any => format!("{MACHINERY}.runtime.RawExtension"),
        Type::SchemaOr(or, _) => {
            let what = match or {
                super::Or::Bool => "Bool",
                super::Or::Array => "Array",
                super::Or::Strings => "StringArray",
            };
            format!("{EXTENSIONS}.JSONSchemaPropsOr{what}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    match value.as_str() {
                        Some(text) if name == "$ref" => out.push(text),
                        _ => references(value, out),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }

    #[test]
    fn a_group_names_all_that_it_reaches_and_says_what_it_is() {
        let schemas = v3_schemas("apps", "v1", std::iter::empty());
        let mut names = Vec::new();
        references(&schemas, &mut names);
        for name in names {
            let name = name.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.get(name).is_some(), "{name} is missing");
        }
        let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(spec["required"], json!(["selector", "template"]));
        let strategy = &spec["properties"]["strategy"];
        assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
        assert_eq!(strategy["default"], json!({}));
        assert!(strategy["description"].as_str().unwrap().contains("deployment strategy"));
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
        );
        assert!(schemas.get("io.k8s.api.core.v1.Service").is_none());
        assert!(
            schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"]["description"]
                .is_string()
        );
    }

    #[test]
    fn lists_carry_the_keys_that_clients_merge_by() {
        let schemas = v3_schemas("", "v1", std::iter::empty());
        let ports = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        let v2 = v2_definitions();
        let ports = &v2["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
        assert_eq!(ports["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.ServicePort");
        assert!(v2.as_object().unwrap().len() > 570);
    }

    #[test]
    fn paths_show_what_kubectl_looks_for() {
        let kind = Gvk::new("apps", "v1", "Deployment");
        let verbs = ["get", "list", "create", "patch", "watch"];
        let served = |path, kind| Resource { path, kind, namespaced: true, verbs: &verbs };
        let scale = Gvk::new("autoscaling", "v1", "Scale");
        let resources = [served("deployments", &kind), served("deployments/scale", &scale)];
        let document = v3_document("apps", "v1", "v1.36.0", &resources);
        let scale = &document["components"]["schemas"]["io.k8s.api.autoscaling.v1.Scale"];
        assert_eq!(scale["x-kubernetes-group-version-kind"][0]["kind"], "Scale");
        assert!(scale["description"].is_string());
        let paths = &document["paths"];
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|one| one["name"] == "fieldValidation"));
        assert!(paths["/apis/apps/v1/deployments"]["get"].is_object());
    }
}
