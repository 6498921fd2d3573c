//! What the server serves, from aggregated discovery, and the names people use for it.
//!
//! Why asked on each run: two small answers, and no file that could be out of date.

use super::session::Session;
use crate::object::status::Result;
use crate::object::{Gvk, Gvr, Value, meta};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A resource as discovery tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// Where it is served.
    pub gvr: Gvr,
    /// As in "Deployment".
    pub kind: String,
    /// As in "deployment".
    pub singular: String,
    /// As in "deploy".
    pub short: Vec<String>,
    /// As in "all".
    pub categories: Vec<String>,
    /// As in "list".
    pub verbs: Vec<String>,
    /// It lives in a namespace.
    pub namespaced: bool,
    /// As in "scale".
    pub subresources: Vec<String>,
}

impl Kind {
    /// Group, version and kind of its objects.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.gvr.group.clone(), self.gvr.version.clone(), self.kind.clone())
    }

    /// As verbs report an object: "pod/a" or "deployment.apps/a".
    pub fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.label())
    }

    /// "pod" or "deployment.apps".
    pub fn label(&self) -> String {
        let mut label = self.kind.to_lowercase();
        if !self.gvr.group.is_empty() {
            label.push('.');
            label.push_str(&self.gvr.group);
        }
        label
    }

    /// An item of a list, with the `apiVersion` and `kind` that lists leave out.
    pub fn typed(&self, mut object: Value) -> Value {
        meta::set(&mut object, &["apiVersion"], self.gvk().api_version());
        meta::set(&mut object, &["kind"], self.kind.as_str());
        object
    }
}

/// Asks the server.
pub async fn discover(session: &Session) -> Result<Vec<Kind>> {
    let (core, named) =
        tokio::try_join!(session.json("/api", ACCEPT), session.json("/apis", ACCEPT))?;
    Ok([core, named].iter().flat_map(read).collect())
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn words(value: &Value, field: &str) -> Vec<String> {
    list(value, field).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn read(document: &Value) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for group in list(document, "items") {
        for version in list(group, "versions") {
            for resource in list(version, "resources") {
                let version = meta::text(version, &["version"]);
                let name = meta::text(resource, &["resource"]);
                let subresources = list(resource, "subresources");
                kinds.push(Kind {
                    gvr: Gvr::new(meta::name(group), version, name),
                    kind: meta::text(resource, &["responseKind", "kind"]).to_owned(),
                    singular: meta::text(resource, &["singularResource"]).to_owned(),
                    short: words(resource, "shortNames"),
                    categories: words(resource, "categories"),
                    verbs: words(resource, "verbs"),
                    namespaced: meta::text(resource, &["scope"]) == "Namespaced",
                    subresources: subresources
                        .map(|sub| meta::text(sub, &["subresource"]).to_owned())
                        .collect(),
                });
            }
        }
    }
    kinds
}

/// The kind that `word` means: plural, singular, short name or kind, alone or with `.group` or
/// `.version.group`. What is served first wins, a plural before a short name.
pub fn find<'a>(kinds: &'a [Kind], word: &str) -> Option<&'a Kind> {
    let word = word.to_lowercase();
    let (name, place) = word.split_once('.').unwrap_or((&word, ""));
    let placed = |kind: &&Kind| {
        place.is_empty()
            || kind.gvr.group == place
            || place.strip_prefix(&format!("{}.", kind.gvr.version)) == Some(&kind.gvr.group)
    };
    let ways: [fn(&Kind, &str) -> bool; 4] = [
        |kind, name| kind.gvr.resource == name,
        |kind, name| kind.singular == name,
        |kind, name| kind.short.iter().any(|short| short == name),
        |kind, name| kind.kind.to_lowercase() == name,
    ];
    ways.iter().find_map(|way| kinds.iter().filter(placed).find(|kind| way(kind, name)))
}

/// What is said about a word that means nothing.
pub fn unknown(word: &str) -> anyhow::Error {
    anyhow::anyhow!("the server doesn't have a resource type {word:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_usual_name_finds_its_kind() {
        let pod = json!({"resource": "pods", "singularResource": "pod", "shortNames": ["po"],
            "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["list"]});
        let deployment = json!({"resource": "deployments", "singularResource": "deployment",
            "shortNames": ["deploy"], "responseKind": {"kind": "Deployment"}, "verbs": ["list"]});
        let document = json!({"items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [pod]}]},
            {"metadata": {"name": "apps"},
             "versions": [{"version": "v1", "resources": [deployment]}]},
        ]});
        let kinds = read(&document);
        for word in ["deployments", "deployment", "deploy", "Deployment", "deploy.apps"] {
            assert_eq!(find(&kinds, word).unwrap().label(), "deployment.apps", "{word}");
        }
        assert_eq!(find(&kinds, "deployments.v1.apps").unwrap().gvr.resource, "deployments");
        assert!(find(&kinds, "po").unwrap().namespaced);
        assert_eq!(find(&kinds, "pods.apps"), None);
    }
}
