//! A policy rule: what it allows, what it covers, how it reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::context::Attributes;
use crate::object::{Value, meta};

/// `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Groups, "" for core, "*" for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub api_groups: Vec<String>,
    /// Paths that are no resources; may end with `*`.
    #[serde(
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub non_resource_urls: Vec<String>,
    /// Names; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub resource_names: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub resources: Vec<String>,
    /// Verbs, "*" for all.
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
}

fn nullable<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// The rules of a role. A rule that can't be read allows nothing.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    let list = meta::at(role, &["rules"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

fn has_or_star(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == "*" || item == text)
}

/// Whether a rule's resource (`*`, `pods`, `pods/log`, `*/log`) means `resource/subresource`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((head, tail)) => tail == subresource && (head == "*" || head == resource),
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(_) => path.starts_with(pattern.trim_end_matches('*')),
        None => pattern == path,
    }
}

impl Rule {
    /// Whether the rule allows a request.
    pub fn allows(&self, what: &Attributes) -> bool {
        if !has_or_star(&self.verbs, &what.verb) {
            return false;
        }
        let Some(gvr) = &what.gvr else {
            return self.non_resource_urls.iter().any(|url| url_matches(url, &what.path));
        };
        has_or_star(&self.api_groups, &gvr.group)
            && self
                .resources
                .iter()
                .any(|pattern| resource_matches(pattern, &gvr.resource, &what.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, &what.name))
    }

    /// The rule as many rules of one verb, one resource (or one path) and at most one name.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Self {
                        verbs: verbs.clone(),
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                        continue;
                    }
                    for name in &self.resource_names {
                        atoms.push(Self { resource_names: vec![name.clone()], ..atom.clone() });
                    }
                }
            }
            for url in &self.non_resource_urls {
                let non_resource_urls = vec![url.clone()];
                atoms.push(Self { verbs: verbs.clone(), non_resource_urls, ..Self::default() });
            }
        }
        atoms
    }

    fn covers(&self, atom: &Self) -> bool {
        let all = |own: &[String], other: &[String]| {
            has(own, "*") || other.iter().all(|text| has(own, text))
        };
        let resources = atom.resources.iter().all(|resource| {
            has_or_star(&self.resources, resource)
                || resource.split_once('/').is_some_and(|(_, subresource)| {
                    self.resources.iter().any(|own| own.strip_prefix("*/") == Some(subresource))
                })
        });
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| has(&self.resource_names, name)));
        let urls = atom.non_resource_urls.iter().all(|url| {
            self.non_resource_urls.iter().any(|own| {
                own == url || (own.ends_with('*') && url.starts_with(own.trim_end_matches('*')))
            })
        });
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && resources
            && names
            && urls
    }
}

/// As upstream's escalation messages show a rule.
impl std::fmt::Display for Rule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
        write!(out, "{{{}}}", parts.join(", "))
    }
}

/// Go's `%q` of a list of texts.
pub fn quoted(list: &[String]) -> String {
    let texts: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// Which of `asked` the rules `held` do not cover, joined by resource.
pub fn missing(held: &[Rule], asked: &[Rule]) -> Vec<Rule> {
    let mut joined: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    let mut rest = Vec::new();
    for atom in asked.iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        match (atom.api_groups.first(), atom.resources.first()) {
            (Some(group), Some(resource)) => {
                let name = atom.resource_names.first().cloned().unwrap_or_default();
                let verbs = joined.entry((group.clone(), resource.clone(), name)).or_default();
                verbs.extend(atom.verbs);
            }
            _ => rest.push(atom),
        }
    }
    let joined = joined.into_iter().map(|((group, resource, name), verbs)| Rule {
        api_groups: vec![group],
        resources: vec![resource],
        resource_names: if name.is_empty() { Vec::new() } else { vec![name] },
        verbs: verbs.into_iter().collect(),
        ..Rule::default()
    });
    joined.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: Value) -> Rule {
        Rule::deserialize(value).unwrap()
    }

    #[test]
    fn resources_and_paths_match_as_upstream() {
        for (pattern, resource, subresource, expected) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "log", false),
            ("pods/log", "pods", "log", true),
            ("*/log", "pods", "log", true),
            ("*/log", "pods", "", false),
            ("pods/*", "pods", "log", false),
            ("*", "pods", "log", true),
            ("*/scale", "deployments", "scaled", false),
        ] {
            let matches = resource_matches(pattern, resource, subresource);
            assert_eq!(matches, expected, "{pattern} {resource}/{subresource}");
        }
        assert!(url_matches("*", "/x"));
        assert!(url_matches("/api/*", "/api/v1"));
        assert!(!url_matches("/api/*", "/api"));
        assert!(!url_matches("/api", "/api/v1"));
    }

    #[test]
    fn what_is_missing_is_told_by_resource() {
        let asked = [rule(json!({"apiGroups": ["", "apps"], "resources": ["pods", "pods/log"],
            "verbs": ["get", "create"]}))];
        let held = [
            rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]})),
            rule(json!({"apiGroups": [""], "resources": ["*/log"], "verbs": ["get"]})),
            rule(json!({"apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["a"],
                "verbs": ["*"]})),
        ];
        let texts: Vec<String> = missing(&held, &asked).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "{APIGroups:[\"\"], Resources:[\"pods/log\"], Verbs:[\"create\"]}",
                "{APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"create\" \"get\"]}",
                "{APIGroups:[\"apps\"], Resources:[\"pods/log\"], Verbs:[\"create\" \"get\"]}",
            ]
        );
        let all = [
            rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})),
            rule(json!({"nonResourceURLs": ["/a/*"], "verbs": ["get"]})),
        ];
        assert!(missing(&all, &asked).is_empty());
        let urls = [rule(json!({"nonResourceURLs": ["/a/b", "/c"], "verbs": ["get"]}))];
        assert_eq!(missing(&all, &urls).len(), 1);
    }
}
