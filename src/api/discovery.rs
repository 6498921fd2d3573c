//! Which groups, versions and resources are served: `/api`, `/apis` and what lies below, plain and
//! aggregated.
//!
//! Why from the registry: what is announced and what is routed cannot differ.

use std::sync::Arc;

use base64::Engine;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::body::{self, Reply};
use super::chain::Incoming;
use super::kind::{Kind, Subresource};
use super::negotiate::{self, Format};
use super::registry::Registry;
use super::resources::Virtual;
use super::server::Api;
use crate::object::schema::encode;
use crate::object::status::{Result, Status};
use crate::object::{GroupVersion, Gvk, Value};

/// The aggregated documents, made once a registry.
#[derive(Default)]
pub struct Discovery {
    made: Mutex<Option<(Arc<Registry>, Arc<Aggregated>)>>,
}

/// A document and its ETag.
struct Document {
    value: Value,
    etag: String,
}

struct Aggregated {
    core: Document,
    named: Document,
}

/// Answers what is a discovery path; `None` for others.
pub fn answer(api: &Api, incoming: &Incoming) -> Option<Result<Reply>> {
    let path = incoming.parts.uri.path().trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if !matches!(parts.first(), Some(&"api" | &"apis")) {
        return None;
    }
    if !matches!(incoming.parts.method, http::Method::GET | http::Method::HEAD) {
        return None;
    }
    let registry = api.registry.load_full();
    let all = All { registry: &registry, virtuals: &api.virtuals };
    let plain = match parts.as_slice() {
        ["api"] | ["apis"] => {
            let named = parts[0] == "apis";
            if let Some(version) = wants_aggregated(incoming) {
                return Some(Ok(aggregated(api, &registry, incoming, named, &version)));
            }
            Some(if named { all.group_list() } else { core_versions() })
        }
        ["api", version] => all.resource_list("", version),
        ["apis", group] => all.group(group),
        ["apis", group, version] => all.resource_list(group, version),
        _ => None,
    };
    let Some(value) = plain else { return Some(Err(Status::no_such_path())) };
    let wish = negotiate::accepted(
        &incoming.parts.headers,
        incoming.query.flag("pretty"),
        &[Format::Json, Format::Yaml],
    );
    Some(wish.map(|wish| match wish.format {
        Format::Yaml => {
            let text = encode::yaml(&value);
            body::reply(StatusCode::OK, "application/yaml", text)
        }
        _ => body::json(StatusCode::OK, &value),
    }))
}

/// The version of `apidiscovery.k8s.io` that the client wants most, if any before plain JSON.
fn wants_aggregated(incoming: &Incoming) -> Option<String> {
    for clause in negotiate::clauses(&incoming.parts.headers) {
        if clause.kind != "application" || clause.subtype != "json" {
            continue;
        }
        if clause.param("as").is_empty() {
            return None;
        }
        let known = ["v2", "v2beta1"].contains(&clause.param("v"));
        if clause.param("g") == "apidiscovery.k8s.io"
            && clause.param("as") == "APIGroupDiscoveryList"
            && known
        {
            return Some(clause.param("v").to_owned());
        }
    }
    None
}

fn aggregated(
    api: &Api,
    registry: &Arc<Registry>,
    incoming: &Incoming,
    named: bool,
    version: &str,
) -> Reply {
    let documents = {
        let mut made = api.discovery.made.lock();
        match &*made {
            Some((of, documents)) if Arc::ptr_eq(of, registry) => documents.clone(),
            _ => {
                let all = All { registry, virtuals: &api.virtuals };
                let documents = Arc::new(Aggregated {
                    core: all.aggregated(false),
                    named: all.aggregated(true),
                });
                *made = Some((registry.clone(), documents.clone()));
                documents
            }
        }
    };
    let document = if named { &documents.named } else { &documents.core };
    let etag = format!("\"{}\"", document.etag);
    let known = incoming.parts.headers.get(header::IF_NONE_MATCH);
    let mut reply = if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        let mut reply = Reply::new(body::full(""));
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        let mut value = document.value.clone();
        value["apiVersion"] = format!("apidiscovery.k8s.io/{version}").into();
        body::json(StatusCode::OK, &value)
    };
    let headers = reply.headers_mut();
    let content =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    for (name, text) in [(header::CONTENT_TYPE, content), (header::ETAG, etag)] {
        if let Ok(text) = HeaderValue::from_str(&text) {
            headers.insert(name, text);
        }
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    reply
}

fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Everything that is served.
struct All<'a> {
    registry: &'a Registry,
    virtuals: &'a [Virtual],
}

impl All<'_> {
    /// Groups with their versions, also those that only hold computed kinds.
    fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups = self.registry.groups();
        for one in self.virtuals {
            let (group, version, _) = one.gvk;
            match groups.iter_mut().find(|(name, _)| name == group) {
                Some((_, versions)) if versions.iter().any(|have| have == version) => {}
                Some((_, versions)) => versions.push(version.to_owned()),
                None => groups.push((group.to_owned(), vec![version.to_owned()])),
            }
        }
        groups.sort_by_key(|(group, _)| super::registry::group_rank(group));
        groups
    }

    fn group_list(&self) -> Value {
        let groups = self.groups().into_iter().filter(|(group, _)| !group.is_empty());
        let groups: Vec<Value> =
            groups.map(|(group, versions)| summary(&group, &versions)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    fn group(&self, name: &str) -> Option<Value> {
        let (group, versions) =
            self.groups().into_iter().find(|(group, _)| group == name && !group.is_empty())?;
        let mut value = summary(&group, &versions);
        value["kind"] = "APIGroup".into();
        value["apiVersion"] = "v1".into();
        Some(value)
    }

    fn virtuals_of(&self, group: &str, version: &str) -> impl Iterator<Item = &Virtual> {
        let at = (group.to_owned(), version.to_owned());
        self.virtuals.iter().filter(move |one| one.gvk.0 == at.0 && one.gvk.1 == at.1)
    }

    fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let kinds = self.registry.in_version(group, version);
        let mut resources: Vec<(String, Value)> = Vec::new();
        for kind in kinds {
            resources.push((kind.resource.clone(), resource(kind)));
            for one in &kind.subresources {
                let name = format!("{}/{}", kind.resource, one.name());
                resources.push((name.clone(), subresource(kind, one, &name)));
            }
        }
        for one in self.virtuals_of(group, version) {
            resources.push((one.resource.to_owned(), virtual_resource(one)));
        }
        if resources.is_empty() {
            return None;
        }
        resources.sort_by(|a, b| a.0.cmp(&b.0));
        let resources: Vec<Value> = resources.into_iter().map(|(_, value)| value).collect();
        Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "resources": resources,
            "groupVersion": GroupVersion::new(group, version).to_string()}))
    }

    fn aggregated(&self, named: bool) -> Document {
        let groups = self.groups().into_iter().filter(|(group, _)| group.is_empty() != named);
        let items: Vec<Value> = groups
            .map(|(group, versions)| {
                let versions: Vec<Value> = versions
                    .iter()
                    .map(|version| {
                        json!({"version": version, "freshness": "Current",
                            "resources": self.aggregated_resources(&group, version)})
                    })
                    .collect();
                json!({"metadata": {"name": group, "creationTimestamp": null},
                    "versions": versions})
            })
            .collect();
        let value = json!({"kind": "APIGroupDiscoveryList", "metadata": {}, "items": items});
        let hash = Sha256::digest(body::to_bytes(&value));
        let etag = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        Document { value, etag }
    }

    fn aggregated_resources(&self, group: &str, version: &str) -> Vec<Value> {
        let mut all: Vec<(String, Value)> = Vec::new();
        for kind in self.registry.in_version(group, version) {
            let mut one = aggregated_one(
                &kind.resource,
                &kind.singular,
                &kind.gvk,
                kind.namespaced,
                &kind.verbs,
            );
            if !kind.short_names.is_empty() {
                one["shortNames"] = kind.short_names.clone().into();
            }
            if !kind.categories.is_empty() {
                one["categories"] = kind.categories.clone().into();
            }
            let mut subs: Vec<&Subresource> = kind.subresources.iter().collect();
            subs.sort_by_key(|sub| sub.name());
            let subs: Vec<Value> = subs
                .into_iter()
                .map(|sub| {
                    let gvk = body_kind(kind, sub);
                    json!({"subresource": sub.name(), "verbs": sub.verbs(),
                        "responseKind": {"group": gvk.group, "version": gvk.version,
                            "kind": gvk.kind}})
                })
                .collect();
            if !subs.is_empty() {
                one["subresources"] = subs.into();
            }
            all.push((kind.resource.clone(), one));
        }
        for one in self.virtuals_of(group, version) {
            let gvk = Gvk::new(one.gvk.0, one.gvk.1, one.gvk.2);
            let verbs: Vec<String> = one.verbs.iter().map(|verb| (*verb).to_owned()).collect();
            let mut value =
                aggregated_one(one.resource, one.singular, &gvk, one.namespaced, &verbs);
            if !one.short_names.is_empty() {
                value["shortNames"] = json!(one.short_names);
            }
            all.push((one.resource.to_owned(), value));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, value)| value).collect()
    }
}

fn aggregated_one(
    resource: &str,
    singular: &str,
    gvk: &Gvk,
    namespaced: bool,
    verbs: &[String],
) -> Value {
    json!({"resource": resource, "singularResource": singular, "verbs": verbs,
        "responseKind": {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
        "scope": if namespaced { "Namespaced" } else { "Cluster" }})
}

fn summary(group: &str, versions: &[String]) -> Value {
    let of = |version: &String| json!({"groupVersion": GroupVersion::new(group, version).to_string(), "version": version});
    let all: Vec<Value> = versions.iter().map(of).collect();
    json!({"name": group, "preferredVersion": all.first(), "versions": all})
}

fn resource(kind: &Kind) -> Value {
    let mut value = json!({"name": kind.resource, "singularName": kind.singular,
        "namespaced": kind.namespaced, "kind": kind.gvk.kind, "verbs": kind.verbs,
        "storageVersionHash": storage_hash(&kind.storage_version)});
    if !kind.short_names.is_empty() {
        value["shortNames"] = kind.short_names.clone().into();
    }
    if !kind.categories.is_empty() {
        value["categories"] = kind.categories.clone().into();
    }
    value
}

fn virtual_resource(one: &Virtual) -> Value {
    let mut value = json!({"name": one.resource, "singularName": one.singular,
        "namespaced": one.namespaced, "kind": one.gvk.2, "verbs": one.verbs});
    if !one.short_names.is_empty() {
        value["shortNames"] = json!(one.short_names);
    }
    value
}

fn subresource(kind: &Kind, one: &Subresource, name: &str) -> Value {
    let gvk = body_kind(kind, one);
    let mut value = json!({"name": name, "singularName": "", "namespaced": kind.namespaced,
        "kind": gvk.kind, "verbs": one.verbs()});
    if gvk.group_version() != kind.gvk.group_version() {
        value["group"] = gvk.group.into();
        value["version"] = gvk.version.into();
    }
    value
}

fn body_kind(kind: &Kind, one: &Subresource) -> Gvk {
    match one {
        Subresource::Status => kind.gvk.clone(),
        Subresource::Scale { .. } => super::handlers::scale::gvk(),
        Subresource::Special { body: (group, version, name), .. } => {
            Gvk::new(*group, *version, *name)
        }
    }
}

/// Upstream's hash of where objects are stored.
fn storage_hash(gvk: &Gvk) -> String {
    let text = format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_hash_is_upstreams() {
        assert_eq!(storage_hash(&Gvk::new("", "v1", "Pod")), "xPOwRZ+Yhw8=");
        assert_eq!(storage_hash(&Gvk::new("apps", "v1", "Deployment")), "8aSe+NMegvE=");
    }

    #[test]
    fn every_kind_is_announced_where_it_is_routed() {
        let registry = Registry::new(crate::api::resources::all());
        let all = All { registry: &registry, virtuals: crate::api::resources::VIRTUAL };
        for kind in registry.all() {
            let list = all.resource_list(&kind.gvk.group, &kind.gvk.version).unwrap();
            let names: Vec<&str> = list["resources"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|r| r["name"].as_str())
                .collect();
            assert!(names.contains(&kind.resource.as_str()), "{}", kind.gvk);
        }
        let groups = all.group_list();
        let names: Vec<&str> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|g| g["name"].as_str())
            .collect();
        assert!(names.contains(&"authentication.k8s.io"), "{names:?}");
        assert!(!names.contains(&""));
    }
}
