//! Which pod and which container a word means, for exec and logs.
//!
//! Why also workloads: `logs deploy/web` is what people type; the selector that the controller
//! uses says which pods those are.

use super::session::Session;
use crate::client::ListOptions;
use crate::object::{Value, meta};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A label selector (`matchLabels`, `matchExpressions`) as it stands in a URL.
pub fn selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut parts: Vec<String> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or(""))).collect();
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let key = meta::text(expression, &["key"]);
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match meta::text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// The pods that a word means: "web-1", "pod/web-1", or of "deploy/web" all, running ones first.
pub async fn meant(session: &Session, word: &str) -> anyhow::Result<Vec<Value>> {
    let (kind, name) = word.split_once('/').unwrap_or(("pods", word));
    let kind = session.kind(kind).await?;
    let object = session.get(&session.target(kind, &session.namespace, name)).await?;
    if kind.label() == "pod" {
        return Ok(vec![object]);
    }
    let spec = &object["spec"]["selector"];
    let labels = match kind.kind.as_str() {
        "Service" | "ReplicationController" => {
            selector(&serde_json::json!({ "matchLabels": spec }))
        }
        _ => selector(spec),
    };
    anyhow::ensure!(!labels.is_empty(), "{} selects no pods", kind.named(name));
    let pods = select(session, &labels).await?;
    anyhow::ensure!(!pods.is_empty(), "{} has no pods", kind.named(name));
    Ok(pods)
}

/// The pods with these labels, running ones first.
pub async fn select(session: &Session, labels: &str) -> anyhow::Result<Vec<Value>> {
    let pods = session.kind("pods").await?;
    let options = ListOptions { label_selector: labels.to_owned(), ..ListOptions::default() };
    let target = session.target(pods, &session.namespace, "");
    let (mut pods, _) = session.list(pods, &target, &options).await?;
    pods.sort_by_key(|pod| {
        meta::is_deleting(pod) || meta::text(pod, &["status", "phase"]) != "Running"
    });
    Ok(pods)
}

/// The names of a pod's containers: (its init containers, its containers).
pub fn containers(pod: &Value) -> (Vec<&str>, Vec<&str>) {
    let names = |list: &str| {
        let list = meta::at(pod, &["spec", list]).and_then(Value::as_array);
        list.into_iter().flatten().map(|one| meta::text(one, &["name"])).collect()
    };
    (names("initContainers"), names("containers"))
}

/// The container meant when none is named; says so when there was a choice.
pub fn container(pod: &Value, named: &str) -> anyhow::Result<String> {
    let (init, all) = containers(pod);
    if !named.is_empty() {
        let known: Vec<&str> = all.iter().chain(&init).copied().chain(ephemeral(pod)).collect();
        anyhow::ensure!(
            known.contains(&named),
            "container {named} is not valid for pod {} out of: {}",
            meta::name(pod),
            known.join(", ")
        );
        return Ok(named.to_owned());
    }
    let annotated = meta::text(pod, &["metadata", "annotations", DEFAULT_CONTAINER]);
    if all.contains(&annotated) {
        return Ok(annotated.to_owned());
    }
    let first = all.first().copied().unwrap_or("");
    if all.len() + init.len() > 1 {
        let init = init.iter().map(|name| format!("{name} (init)"));
        let names: Vec<String> = all.iter().map(|&name| name.to_owned()).chain(init).collect();
        eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
    }
    Ok(first.to_owned())
}

fn ephemeral(pod: &Value) -> impl Iterator<Item = &str> {
    let list = meta::at(pod, &["spec", "ephemeralContainers"]).and_then(Value::as_array);
    list.into_iter().flatten().map(|one| meta::text(one, &["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_become_their_url_form() {
        let both = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&both), "app=web,tier notin (a,b),!old");
        assert_eq!(selector(&Value::Null), "");
    }
}
