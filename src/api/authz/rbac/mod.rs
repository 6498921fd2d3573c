//! RBAC: what roles allow, bindings give; nothing is ever denied, only not given.

pub mod aggregation;
pub mod escalation;
pub mod index;
pub mod rule;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;

use self::index::{Index, Source, State};
use self::rule::Rule;
use super::{Authorizer, Decision};
use crate::api::context::Attributes;
use crate::api::objects::{Change, SharedObjects};
use crate::client::User;
use crate::stdx::tasks::{RESTART, Tasks};

/// Changes that are taken in before a new index is made.
const CHANGES_PER_INDEX_MAX: usize = 256;

/// Answers from roles and bindings.
#[derive(Default)]
pub struct Rbac {
    index: ArcSwap<Index>,
}

impl Rbac {
    /// From the objects as they are now.
    pub fn load(objects: &SharedObjects) -> Self {
        let mut state = State::default();
        for source in Source::ALL {
            let all = objects.list(source.resource(), index::GROUP, "");
            state.apply(source, Change::Reset(all));
        }
        Self { index: ArcSwap::from_pointee(state.compile()) }
    }

    /// From the objects as they are now, and as they will be.
    pub fn start(objects: &SharedObjects, tasks: &Tasks) -> Arc<Self> {
        let this = Arc::new(Self::load(objects));
        let (rbac, objects) = (this.clone(), objects.clone());
        tasks.spawn("rbac-index", RESTART, move |stop| {
            let (rbac, objects) = (rbac.clone(), objects.clone());
            async move {
                let streams = Source::ALL.map(|source| {
                    let changes = objects.follow(source.resource(), index::GROUP);
                    changes.map(move |change| (source, change)).boxed()
                });
                let mut changes = stream::select_all(streams).ready_chunks(CHANGES_PER_INDEX_MAX);
                let mut state = State::default();
                let mut seen = Vec::new();
                loop {
                    let batch = tokio::select! {
                        batch = changes.next() => batch,
                        () = stop.cancelled() => return Ok(()),
                    };
                    let Some(batch) = batch else { anyhow::bail!("the changes ended") };
                    for (source, change) in batch {
                        if !seen.contains(&source) {
                            seen.push(source);
                        }
                        state.apply(source, change);
                    }
                    // Half of the resources would be an index that refuses what is allowed.
                    if seen.len() == Source::ALL.len() {
                        rbac.index.store(Arc::new(state.compile()));
                    }
                }
            }
        });
        this
    }

    /// The present index.
    pub fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// All rules that a user has in a namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.index.load().grants(user, namespace) {
            match &grant.rules {
                Ok(more) => rules.extend(more.iter().cloned()),
                Err(error) if !errors.contains(error) => errors.push(error.clone()),
                Err(_) => {}
            }
        }
        (rules, errors)
    }
}

/// Go's text of several errors.
fn joined(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, what: &Attributes) -> Decision {
        let index = self.index.load();
        let mut errors = Vec::new();
        for grant in index.grants(&what.user, &what.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(what)) => {
                    return Decision::Allow(format!("RBAC: allowed by {}", grant.reason));
                }
                Err(error) if !errors.contains(error) => errors.push(error.clone()),
                _ => {}
            }
        }
        if errors.is_empty() {
            return Decision::NoOpinion(String::new());
        }
        Decision::NoOpinion(format!("RBAC: {}", joined(&errors)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::tests::{path, resource, user};
    use crate::api::objects::MemoryObjects;
    use serde_json::{Value, json};

    fn binding(kind: &str, role: (&str, &str), name: &str, subject: Value) -> Value {
        let namespace = if kind == "RoleBinding" { "ns" } else { "" };
        json!({"kind": kind, "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": index::GROUP, "kind": role.0, "name": role.1},
            "subjects": [subject]})
    }

    fn objects() -> MemoryObjects {
        let reader = json!([{"apiGroups": [""], "resources": ["pods", "pods/log"],
            "verbs": ["get", "list"]}, {"nonResourceURLs": ["/logs/*"], "verbs": ["get"]}]);
        let one_map = json!([{"apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["only"], "verbs": ["update"]}]);
        let group = |name: &str| json!({"kind": "Group", "name": name});
        let sa = json!({"kind": "ServiceAccount", "name": "sa"});
        MemoryObjects::with([
            (
                "clusterroles",
                index::GROUP,
                json!({"metadata": {"name": "reader"}, "rules": reader}),
            ),
            (
                "roles",
                index::GROUP,
                json!({"metadata": {"name": "map", "namespace": "ns"}, "rules": one_map}),
            ),
            (
                "clusterrolebindings",
                index::GROUP,
                binding("ClusterRoleBinding", ("ClusterRole", "reader"), "crb", group("readers")),
            ),
            (
                "rolebindings",
                index::GROUP,
                binding("RoleBinding", ("ClusterRole", "reader"), "rb", sa.clone()),
            ),
            ("rolebindings", index::GROUP, binding("RoleBinding", ("Role", "map"), "map", sa)),
            (
                "rolebindings",
                index::GROUP,
                binding("RoleBinding", ("Role", "gone"), "broken", group("lost")),
            ),
        ])
    }

    #[tokio::test]
    async fn a_matrix_of_users_and_requests_is_decided_in_upstreams_words() {
        let objects: SharedObjects = Arc::new(objects());
        let rbac = Rbac::load(&objects);
        let reader = user("ada", &["readers"]);
        let sa = user("system:serviceaccount:ns:sa", &[]);
        let by_crb = "RBAC: allowed by ClusterRoleBinding \"crb\" of ClusterRole \"reader\" to \
                      Group \"readers\"";
        let by_rb = "RBAC: allowed by RoleBinding \"rb/ns\" of ClusterRole \"reader\" to \
                     ServiceAccount \"sa/ns\"";
        let by_map = "RBAC: allowed by RoleBinding \"map/ns\" of Role \"map\" to ServiceAccount \
                      \"sa/ns\"";
        for (who, what, allowed_by) in [
            (&reader, resource("get", "", "pods", "", "any", "p"), Some(by_crb)),
            (&reader, resource("get", "", "pods", "log", "any", "p"), Some(by_crb)),
            (&reader, resource("list", "", "pods", "", "", ""), Some(by_crb)),
            (&reader, resource("delete", "", "pods", "", "any", "p"), None),
            (&reader, resource("get", "", "pods", "exec", "any", "p"), None),
            (&reader, resource("get", "metrics.k8s.io", "pods", "", "any", "p"), None),
            (&reader, path("get", "/logs/x"), Some(by_crb)),
            (&reader, path("get", "/metrics"), None),
            (&sa, resource("get", "", "pods", "", "ns", "p"), Some(by_rb)),
            (&sa, resource("get", "", "pods", "", "other", "p"), None),
            (&sa, resource("list", "", "pods", "", "", ""), None),
            (&sa, path("get", "/logs/x"), None),
            (&sa, resource("update", "", "configmaps", "", "ns", "only"), Some(by_map)),
            (&sa, resource("update", "", "configmaps", "", "ns", "more"), None),
            (&sa, resource("create", "", "configmaps", "", "ns", ""), None),
            (&user("sa", &[]), resource("get", "", "pods", "", "ns", "p"), None),
        ] {
            let what = Attributes { user: Arc::new(who.clone()), ..what };
            let expected = match allowed_by {
                Some(reason) => Decision::Allow(reason.to_owned()),
                None => Decision::NoOpinion(String::new()),
            };
            assert_eq!(rbac.authorize(&what).await, expected, "{what:?}");
        }
        let lost = Attributes {
            user: Arc::new(user("x", &["lost"])),
            ..resource("get", "", "pods", "", "ns", "p")
        };
        let reason = "RBAC: role.rbac.authorization.k8s.io \"gone\" not found";
        assert_eq!(rbac.authorize(&lost).await, Decision::NoOpinion(reason.to_owned()));
    }

    #[tokio::test]
    async fn a_new_binding_counts_and_a_deleted_one_does_not() {
        let memory = Arc::new(objects());
        let shared: SharedObjects = memory.clone();
        let tasks = Tasks::new();
        let rbac = Rbac::start(&shared, &tasks);
        let ask = |name: &str| Attributes {
            user: Arc::new(user(name, &[])),
            ..resource("get", "", "pods", "", "a", "p")
        };
        let reached = async |allowed: bool| {
            while matches!(rbac.authorize(&ask("eve")).await, Decision::Allow(_)) != allowed {
                tokio::task::yield_now().await;
            }
        };
        let role = ("ClusterRole", "reader");
        let subject = json!({"kind": "User", "name": "eve"});
        let new = binding("ClusterRoleBinding", role, "new", subject);
        memory.put("clusterrolebindings", index::GROUP, new);
        reached(true).await;
        memory.remove("clusterrolebindings", index::GROUP, "", "new");
        reached(false).await;
        tasks.shutdown().await;
    }
}
