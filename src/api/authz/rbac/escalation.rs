//! Nobody may grant more than they hold.
//!
//! A role is written only by who holds all its rules (or may `escalate`), a binding only by who
//! holds its role's rules (or may `bind` it). Why as an admission plug-in: the check needs the
//! object as it will be stored, after defaults and mutation.

use std::sync::Arc;

use async_trait::async_trait;

use super::rule::{Rule, missing, quoted, rules_of};
use super::{Rbac, index};
use crate::api::admission::{Operation, Plugin, Request};
use crate::api::authn::MASTERS;
use crate::api::authz::{Authorizer, Decision};
use crate::api::context::Attributes;
use crate::object::status::Result;
use crate::object::{Gvr, Status, Value, meta};

/// Refuses roles and bindings that grant more than their writer holds.
pub struct Escalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl Escalation {
    /// `authorizer` decides on the verbs `escalate` and `bind`.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn may(&self, request: &Request, verb: &str, resource: &str, name: &str) -> bool {
        let what = Attributes {
            verb: verb.to_owned(),
            gvr: Some(Gvr::new(index::GROUP, "*", resource)),
            name: name.to_owned(),
            subresource: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
            ..request.attributes.clone()
        };
        matches!(self.authorizer.authorize(&what).await, Decision::Allow(_))
    }

    fn confirm(&self, request: &Request, rules: &[Rule]) -> std::result::Result<(), String> {
        let user = &request.attributes.user;
        let (held, errors) = self.rbac.rules_for(user, &request.attributes.namespace);
        let missing = missing(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        let mut message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(&user.groups),
            texts.join("\n")
        );
        if !errors.is_empty() {
            message.push_str(&format!("; resolution errors: [{}]", errors.join(" ")));
        }
        Err(message)
    }

    async fn check_role(&self, request: &Request, gvr: &Gvr, role: &Value) -> Result<()> {
        if self.may(request, "escalate", &gvr.resource, &request.attributes.name).await {
            return Ok(());
        }
        let forbidden = |why: &str| Status::forbidden(gvr, meta::name(role), why);
        self.confirm(request, &rules_of(role)).map_err(|why| forbidden(&why))?;
        let aggregates = |role: &Value| {
            meta::at(role, &["aggregationRule", "clusterRoleSelectors"])
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
        };
        if aggregates(role) || request.old.as_deref().is_some_and(aggregates) {
            let everything = || vec!["*".to_owned()];
            let full = [
                Rule {
                    verbs: everything(),
                    api_groups: everything(),
                    resources: everything(),
                    ..Rule::default()
                },
                Rule { verbs: everything(), non_resource_urls: everything(), ..Rule::default() },
            ];
            self.confirm(request, &full).map_err(|_| {
                forbidden("must have cluster-admin privileges to use the aggregationRule")
            })?;
        }
        Ok(())
    }

    async fn check_binding(&self, request: &Request, gvr: &Gvr, binding: &Value) -> Result<()> {
        let kind = meta::text(binding, &["roleRef", "kind"]);
        let name = meta::text(binding, &["roleRef", "name"]);
        let resource = if kind == "Role" { "roles" } else { "clusterroles" };
        if self.may(request, "bind", resource, name).await {
            return Ok(());
        }
        let namespace = &request.attributes.namespace;
        let rules = self.rbac.index().role(kind, namespace, name).map_err(|error| {
            let singular = Gvr::new(index::GROUP, "v1", kind.to_lowercase());
            match kind {
                "Role" | "ClusterRole" => Status::not_found(&singular, name),
                _ => Status::internal(error),
            }
        })?;
        self.confirm(request, &rules)
            .map_err(|why| Status::forbidden(gvr, meta::name(binding), &why))
    }
}

/// Whether an update changes nothing but what the garbage collector does.
fn only_touches_owners(new: &Value, old: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "resourceVersion", "managedFields"] {
            meta::remove(&mut object, &["metadata", field]);
        }
        object
    };
    plain(new) == plain(old)
}

#[async_trait]
impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let (Some(gvr), Some(object)) = (&request.attributes.gvr, &request.object) else {
            return Ok(());
        };
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let is_master = request.attributes.user.groups.iter().any(|group| group == MASTERS);
        if gvr.group != index::GROUP || !is_write || is_master {
            return Ok(());
        }
        if request.old.as_ref().is_some_and(|old| only_touches_owners(object, old)) {
            return Ok(());
        }
        match gvr.resource.as_str() {
            "roles" | "clusterroles" => self.check_role(request, gvr, object).await,
            "rolebindings" | "clusterrolebindings" => {
                self.check_binding(request, gvr, object).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;
    use crate::api::authz::tests::user;
    use crate::api::objects::{MemoryObjects, SharedObjects};
    use serde_json::json;

    fn escalation() -> Escalation {
        let bind = |name: &str, role: &str, user: &str| {
            json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user}]})
        };
        let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
        let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        let may = json!([{"apiGroups": [index::GROUP], "verbs": ["escalate", "bind"],
            "resources": ["roles", "clusterroles"]}]);
        let objects: SharedObjects = Arc::new(MemoryObjects::with([
            ("clusterroles", index::GROUP, role("pods", pods)),
            ("clusterroles", index::GROUP, role("secrets", secrets)),
            ("clusterroles", index::GROUP, role("may", may)),
            ("clusterrolebindings", index::GROUP, bind("a", "pods", "ada")),
            ("clusterrolebindings", index::GROUP, bind("b", "may", "bob")),
        ]));
        let rbac = Arc::new(Rbac::load(&objects));
        Escalation::new(rbac.clone(), rbac)
    }

    #[tokio::test]
    async fn roles_and_bindings_grant_no_more_than_is_held() {
        let escalation = escalation();
        let rule = |resource: &str| {
            let verbs = ["get"];
            json!([{"apiGroups": [""], "resources": [resource], "verbs": verbs}])
        };
        let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules});
        let binding = |role: &str| {
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": "eve"}]})
        };
        let aggregating = json!({"metadata": {"name": "r"}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [{}]}});
        let master = user("root", &[MASTERS]);
        let (ada, bob) = (user("ada", &["system:authenticated"]), user("bob", &[]));
        let lacking = |what: &str| {
            format!(
                "user \"ada\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC \
                 permissions not currently held:\n{{APIGroups:[\"\"], Resources:[\"{what}\"], \
                 Verbs:[\"get\"]}}"
            )
        };
        for (who, resource, object, refusal) in [
            (&ada, "clusterroles", role(rule("pods")), None),
            (&ada, "clusterroles", role(rule("secrets")), Some(lacking("secrets"))),
            (&bob, "clusterroles", role(rule("secrets")), None),
            (&master, "clusterroles", role(rule("secrets")), None),
            (
                &ada,
                "clusterroles",
                aggregating.clone(),
                Some("must have cluster-admin privileges to use the aggregationRule".to_owned()),
            ),
            (&bob, "clusterroles", aggregating, None),
            (&ada, "clusterrolebindings", binding("pods"), None),
            (&ada, "clusterrolebindings", binding("secrets"), Some(lacking("secrets"))),
            (&bob, "clusterrolebindings", binding("secrets"), None),
            (&master, "clusterrolebindings", binding("missing"), None),
        ] {
            let mut request = request(resource, index::GROUP, "", object);
            request.attributes.user = Arc::new(who.clone());
            let result = escalation.validate(&request).await;
            match refusal {
                None => assert_eq!(result, Ok(()), "{} {resource}", who.name),
                Some(text) => {
                    let status = result.unwrap_err();
                    assert_eq!(status.code, 403);
                    assert!(status.message.ends_with(&text), "{}", status.message);
                }
            }
        }
        let request = {
            let mut request = request("clusterrolebindings", index::GROUP, "", binding("missing"));
            request.attributes.user = Arc::new(ada);
            request
        };
        let status = escalation.validate(&request).await.unwrap_err();
        let text = "clusterrole.rbac.authorization.k8s.io \"missing\" not found";
        assert_eq!((status.code, status.message.as_str()), (404, text));
    }
}
