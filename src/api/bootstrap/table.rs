//! Reads the table of default RBAC objects (`embedded/bootstrap/rbac.txt`).
//!
//! Why a table: upstream's defaults are 137 objects of mostly the same shape; as lines a reader
//! can see who may what, and a difference from one release to the next is a small diff.

use serde_json::json;

use crate::api::authz::rbac::aggregation;
use crate::api::authz::rbac::index::GROUP;
use crate::api::authz::rbac::rule::{Rule, rules_of};
use crate::object::{Value, meta};

const TABLE: &str = include_str!("../../../embedded/bootstrap/rbac.txt");
/// The annotation that lets an operator keep his hands on a default object.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
const CONTROLLER: &str = "system:controller:";

/// The default objects of RBAC, roles before bindings, aggregated roles filled in.
pub fn rbac_objects() -> Result<Vec<Value>, String> {
    let (mut roles, mut bindings) = (Vec::new(), Vec::new());
    for (number, line) in TABLE.lines().enumerate() {
        let parsed = if line.is_empty() || line.starts_with('#') {
            Some(())
        } else if let Some(rule) = line.strip_prefix("  ") {
            roles.last_mut().and_then(|role| add_rule(role, rule))
        } else {
            add_object(&mut roles, &mut bindings, line)
        };
        parsed.ok_or_else(|| format!("rbac.txt line {}: {line}", number + 1))?;
    }
    aggregation::fill(&mut roles);
    roles.append(&mut bindings);
    Ok(roles)
}

/// The rules of a default cluster role.
pub fn rules_of_default(name: &str) -> Result<Vec<Rule>, String> {
    let objects = rbac_objects()?;
    let role =
        objects.iter().find(|role| role["kind"] == "ClusterRole" && meta::name(role) == name);
    role.map(rules_of).ok_or_else(|| format!("rbac.txt has no ClusterRole {name}"))
}

fn object(kind: &str, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": {AUTOUPDATE: "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        },
    });
    if let Some((namespace, name)) = name.split_once('/') {
        meta::set(&mut object, &["metadata", "namespace"], namespace);
        meta::set(&mut object, &["metadata", "name"], name);
    }
    object
}

fn add_object(roles: &mut Vec<Value>, bindings: &mut Vec<Value>, line: &str) -> Option<()> {
    let mut words = line.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    match kind {
        "Controller" => {
            let full = format!("{CONTROLLER}{name}");
            let subject = format!("ServiceAccount:kube-system/{name}");
            let role = format!("ClusterRole:{full}");
            let words = [role.as_str(), subject.as_str()];
            bindings.push(binding("ClusterRoleBinding", &full, words.into_iter())?);
            roles.push(role_of("ClusterRole", &full));
        }
        "ClusterRole" | "Role" => {
            let mut role = role_of(kind, name);
            let mut words = words.peekable();
            while let Some(label) = words.next_if(|word| word.starts_with('+')) {
                let label = format!("{AGGREGATE}{}", &label[1..]);
                role["metadata"]["labels"][label] = json!("true");
            }
            if words.next_if_eq(&"aggregates").is_some() {
                let label = format!("{AGGREGATE}{}", words.next()?);
                role["aggregationRule"] =
                    json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            }
            roles.push(role);
        }
        "ClusterRoleBinding" | "RoleBinding" => bindings.push(binding(kind, name, words)?),
        _ => return None,
    }
    Some(())
}

fn role_of(kind: &str, name: &str) -> Value {
    let mut role = object(kind, name);
    role["rules"] = json!([]);
    role
}

fn binding<'a>(kind: &str, name: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Value> {
    let mut binding = object(kind, name);
    let (role_kind, role) = words.next()?.split_once(':')?;
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Option<Vec<Value>> = words
        .map(|word| {
            let (kind, name) = word.split_once(':')?;
            Some(match kind {
                "ServiceAccount" => {
                    let (namespace, name) = name.split_once('/')?;
                    json!({"kind": kind, "name": name, "namespace": namespace})
                }
                _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
            })
        })
        .collect();
    let subjects = subjects?;
    if !subjects.is_empty() {
        binding["subjects"] = json!(subjects);
    }
    Some(binding)
}

fn add_rule(role: &mut Value, line: &str) -> Option<()> {
    let list = |text: &str| -> Vec<String> {
        let plain = |word: &str| if word == "core" { String::new() } else { word.to_owned() };
        text.split(',').map(plain).collect()
    };
    let words: Vec<&str> = line.split(' ').collect();
    let rule = match words.as_slice() {
        [verbs, "url", paths] => {
            Rule { verbs: list(verbs), non_resource_urls: list(paths), ..Rule::default() }
        }
        [verbs, groups, resources, names @ ..] if names.len() <= 1 => Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: names.first().map(|names| list(names)).unwrap_or_default(),
            ..Rule::default()
        },
        _ => return None,
    };
    role.get_mut("rules")?.as_array_mut()?.push(json!(rule));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_upstreams_objects() {
        let objects = rbac_objects().unwrap();
        let count = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
        assert_eq!(count("ClusterRole"), 31 + 38);
        assert_eq!(count("ClusterRoleBinding"), 12 + 38);
        assert_eq!((count("Role"), count("RoleBinding")), (7, 7));
        let find = |kind: &str, name: &str| {
            objects.iter().find(|one| one["kind"] == kind && meta::name(one) == name).unwrap()
        };
        let names: Vec<String> = rules_of(find("ClusterRole", "system:kube-scheduler"))
            .into_iter()
            .flat_map(|rule| rule.resource_names)
            .collect();
        assert_eq!(names, ["kube-scheduler"]);
        let admin = rules_of(find("ClusterRole", "admin"));
        assert!(admin.iter().any(|rule| rule.resources.contains(&"rolebindings".to_owned())));
        assert!(admin.iter().any(|rule| rule.resources.contains(&"pods/exec".to_owned())));
        assert!(admin.iter().any(|rule| rule.resources.contains(&"pods/log".to_owned())));
        let binding = find("ClusterRoleBinding", "system:controller:job-controller");
        assert_eq!(binding["subjects"][0]["namespace"], "kube-system");
        assert_eq!(find("ClusterRoleBinding", "system:node").get("subjects"), None);
        assert!(!rules_of_default("system:node").unwrap().is_empty());
    }
}
