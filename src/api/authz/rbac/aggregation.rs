//! Aggregated cluster roles: their rules are those of the roles that their selectors pick.
//!
//! Why written into the role: the rules are read by authorization, by people and by tools alike,
//! and none of them should have to know how they came about.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::json;

use super::index::GROUP;
use super::rule::{Rule, rules_of};
use crate::api::objects::{Change, SharedObjects};
use crate::client::{PatchKind, SharedClient, Target, WriteOptions};
use crate::object::selector::Selector;
use crate::object::{Gvr, Value, meta};
use crate::stdx::backoff::Backoff;
use crate::stdx::tasks::{RESTART, Tasks};

/// The rules that an aggregating role should have; `None` for a role that does not aggregate.
/// `all` are all cluster roles, by name.
pub fn aggregated<'a>(
    role: &Value,
    all: impl Iterator<Item = &'a Value> + Clone,
) -> Option<Vec<Rule>> {
    let selectors = meta::at(role, &["aggregationRule", "clusterRoleSelectors"])?.as_array()?;
    if selectors.is_empty() {
        return None;
    }
    let mut rules: Vec<Rule> = Vec::new();
    for selector in selectors {
        // A selector that can't be read picks nothing; validation lets none through.
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        for other in all.clone() {
            if meta::name(other) == meta::name(role) || !selector.matches(meta::labels(other)) {
                continue;
            }
            for rule in rules_of(other) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    Some(rules)
}

/// Fills in the rules of all aggregating roles, which may aggregate one another, in place.
pub fn fill(roles: &mut [Value]) {
    // A chain of aggregating roles is as long as there are roles, and each round settles one link.
    for _ in 0..roles.len() {
        let next: Vec<Option<Vec<Rule>>> =
            roles.iter().map(|role| aggregated(role, roles.iter())).collect();
        let mut changed = false;
        for (role, rules) in roles.iter_mut().zip(next) {
            if let Some(rules) = rules
                && rules != rules_of(role)
            {
                role["rules"] = json!(rules);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Keeps aggregated roles as they should be, for as long as the process runs. `client` speaks as
/// `system:serviceaccount:kube-system:clusterrole-aggregation-controller`.
pub fn spawn(tasks: &Tasks, objects: SharedObjects, client: SharedClient) {
    tasks.spawn("clusterrole-aggregation", RESTART, move |stop| {
        let (objects, client) = (objects.clone(), client.clone());
        async move {
            tokio::select! {
                result = follow(&objects, &client) => result,
                () = stop.cancelled() => Ok(()),
            }
        }
    });
}

/// Delays between attempts at a role that could not be written.
const RETRY: Backoff =
    Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(30));
/// Changes that are taken in before the roles are looked at.
const CHANGES_PER_PASS_MAX: usize = 256;

async fn follow(objects: &SharedObjects, client: &SharedClient) -> anyhow::Result<()> {
    let mut changes = objects.follow("clusterroles", GROUP).ready_chunks(CHANGES_PER_PASS_MAX);
    let mut roles: BTreeMap<String, std::sync::Arc<Value>> = BTreeMap::new();
    let mut failures = 0;
    loop {
        let again = async {
            match failures {
                0 => std::future::pending().await,
                failures => tokio::time::sleep(RETRY.delay(failures)).await,
            }
        };
        let batch = tokio::select! {
            batch = changes.next() => match batch {
                Some(batch) => batch,
                None => anyhow::bail!("the changes ended"),
            },
            () = again => Vec::new(),
        };
        for change in batch {
            match change {
                Change::Reset(all) => {
                    roles =
                        all.into_iter().map(|role| (meta::name(&role).to_owned(), role)).collect();
                }
                Change::Put(role) => {
                    roles.insert(meta::name(&role).to_owned(), role);
                }
                Change::Gone { name, .. } => {
                    roles.remove(&name);
                }
            }
        }
        failures = if write(&roles, client).await { 0 } else { failures + 1 };
    }
}

/// Writes what differs; whether all of it was accepted.
async fn write(roles: &BTreeMap<String, std::sync::Arc<Value>>, client: &SharedClient) -> bool {
    let gvr = Gvr::new(GROUP, "v1", "clusterroles");
    let mut done = true;
    for role in roles.values() {
        let all = roles.values().map(|role| &**role);
        let Some(rules) = aggregated(role, all).filter(|rules| *rules != rules_of(role)) else {
            continue;
        };
        // The version guards against a role that changed meanwhile.
        let version = meta::resource_version(role);
        let patch = json!({"metadata": {"resourceVersion": version}, "rules": rules});
        let target = Target::object(&gvr, "", meta::name(role));
        let options = WriteOptions::default();
        let result = client.patch(&target, PatchKind::Merge, patch, &options).await;
        if let Err(status) = result
            && !status.is_conflict()
            && !status.is_not_found()
        {
            tracing::warn!(role = meta::name(role), "aggregating: {status}");
            done = false;
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_gather_rules_through_other_aggregating_roles() {
        let role = |name: &str, label: &str, picks: &str, resource: &str| {
            let rules = match resource {
                "" => json!([]),
                _ => json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]),
            };
            let mut role = json!({"metadata": {"name": name, "labels": {label: "true"}},
                "rules": rules});
            if !picks.is_empty() {
                role["aggregationRule"] =
                    json!({"clusterRoleSelectors": [{"matchLabels": {picks: "true"}}]});
            }
            role
        };
        let mut roles = [
            role("admin", "none", "to-admin", ""),
            role("edit", "to-admin", "to-edit", ""),
            role("pods", "to-edit", "", "pods"),
            role("roles", "to-admin", "", "roles"),
        ];
        fill(&mut roles);
        let resources = |role: &Value| -> Vec<String> {
            rules_of(role).into_iter().flat_map(|rule| rule.resources).collect()
        };
        assert_eq!(resources(&roles[0]), ["pods", "roles"]);
        assert_eq!(resources(&roles[1]), ["pods"]);
        assert_eq!(resources(&roles[2]), ["pods"]);
    }
}
