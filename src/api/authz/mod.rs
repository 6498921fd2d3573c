//! May they? The first authorizer that has an opinion decides.
//!
//! The superusers' group, then nodes by what their pods need, then RBAC. Why nobody ever denies:
//! upstream's default authorizers only allow or pass on, so that roles add up.

pub mod node;
pub mod rbac;
pub mod review;

use std::sync::Arc;

use async_trait::async_trait;

use self::node::{Graph, NodeAuthorizer};
use self::rbac::Rbac;
use self::rbac::rule::Rule;
use super::authn::{ANONYMOUS, MASTERS};
use super::context::Attributes;
use super::objects::SharedObjects;
use crate::object::selector::parse_fields;
use crate::object::{Gvr, Status};
use crate::stdx::tasks::Tasks;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, for this reason.
    Allow(String),
    /// No, and nobody else is asked.
    Deny(String),
    /// Not mine to say; the reason is shown when nobody allows.
    NoOpinion(String),
}

/// Decides who may do what.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides on one request.
    async fn authorize(&self, what: &Attributes) -> Decision;
}

/// All authorizers in their order.
pub struct Authorization {
    node: NodeAuthorizer,
    rbac: Arc<Rbac>,
    graph: Arc<Graph>,
}

impl Authorization {
    /// Over the objects as they are and will be. `node_rules`: the rules of the bootstrap role
    /// `system:node`.
    pub fn start(objects: &SharedObjects, node_rules: Vec<Rule>, tasks: &Tasks) -> Self {
        let graph = Graph::start(objects.clone(), tasks);
        let node = NodeAuthorizer::new(graph.clone(), node_rules);
        Self { node, rbac: Rbac::start(objects, tasks), graph }
    }

    /// The roles and bindings, for escalation checks and rule reviews.
    pub fn rbac(&self) -> Arc<Rbac> {
        self.rbac.clone()
    }

    /// The nodes' pods.
    pub fn graph(&self) -> Arc<Graph> {
        self.graph.clone()
    }
}

#[async_trait]
impl Authorizer for Authorization {
    async fn authorize(&self, what: &Attributes) -> Decision {
        if what.user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allow(String::new());
        }
        let named = with_selected_name(what);
        let what = named.as_ref().unwrap_or(what);
        let mut reasons = Vec::new();
        for authorizer in [&self.node as &dyn Authorizer, &*self.rbac] {
            match authorizer.authorize(what).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

/// A list or watch of `metadata.name=X` is authorized as one of X (upstream's RequestInfo).
fn with_selected_name(what: &Attributes) -> Option<Attributes> {
    let is_read = matches!(what.verb.as_str(), "list" | "watch");
    if !is_read || !what.name.is_empty() || what.field_selector.is_empty() {
        return None;
    }
    let fields = parse_fields(&what.field_selector).ok()?;
    let name = fields.into_iter().find(|one| one.field == "metadata.name" && !one.negated)?.value;
    Some(Attributes { name, ..what.clone() })
}

/// The 403 for a request that nobody allowed, in upstream's words.
pub fn forbidden(what: &Attributes, reason: &str) -> Status {
    let user = if what.user.name.is_empty() { ANONYMOUS } else { what.user.name.as_str() };
    let verb = &what.verb;
    let mut text = match &what.gvr {
        None => format!("User {user:?} cannot {verb} path {:?}", what.path),
        Some(gvr) => {
            let resource = match what.subresource.as_str() {
                "" => gvr.resource.clone(),
                subresource => format!("{}/{subresource}", gvr.resource),
            };
            let scope = match what.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let group = &gvr.group;
            format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}"
            )
        }
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    match &what.gvr {
        Some(gvr) => Status::forbidden(gvr, &what.name, &text),
        None => {
            // Upstream names no resource here: `forbidden: User … cannot get path …`.
            let mut status = Status::forbidden(&Gvr::new("", "", ""), "", &text);
            status.message = format!("forbidden: {text}");
            status
        }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;
    use crate::api::objects::MemoryObjects;
    use crate::client::User;

    pub fn user(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        User { name: name.to_owned(), groups, ..User::default() }
    }

    pub fn resource(
        verb: &str,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Attributes {
        Attributes {
            gvr: Some(Gvr::new(group, "v1", resource)),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..path(verb, "")
        }
    }

    pub fn path(verb: &str, path: &str) -> Attributes {
        Attributes {
            user: Arc::default(),
            verb: verb.to_owned(),
            gvr: None,
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            path: path.to_owned(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    #[tokio::test]
    async fn masters_may_everything_and_refusals_are_told_as_upstream_tells_them() {
        let objects: SharedObjects = Arc::new(MemoryObjects::default());
        let tasks = Tasks::new();
        let all = Authorization::start(&objects, Vec::new(), &tasks);
        let delete = resource("delete", "apps", "deployments", "", "ns", "web");
        let by = |who: User, what: &Attributes| Attributes { user: Arc::new(who), ..what.clone() };
        let root = all.authorize(&by(user("root", &[MASTERS]), &delete)).await;
        assert_eq!(root, Decision::Allow(String::new()));
        let eve = by(user("eve", &[]), &delete);
        assert_eq!(all.authorize(&eve).await, Decision::NoOpinion(String::new()));
        assert_eq!(
            forbidden(&eve, "").message,
            "deployments.apps \"web\" is forbidden: User \"eve\" cannot delete resource \
             \"deployments\" in API group \"apps\" in the namespace \"ns\""
        );
        let log = by(user("eve", &[]), &resource("get", "", "pods", "log", "", "p"));
        assert!(forbidden(&log, "RBAC: x").message.ends_with(
            "cannot get resource \"pods/log\" in API group \"\" at the cluster scope: RBAC: x"
        ));
        let metrics = by(User::default(), &path("get", "/metrics"));
        assert_eq!(
            forbidden(&metrics, "").message,
            "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
        );
        tasks.shutdown().await;
    }

    #[test]
    fn a_list_by_name_is_asked_about_as_that_name() {
        let mut what = resource("list", "", "secrets", "", "ns", "");
        assert!(with_selected_name(&what).is_none());
        what.field_selector = "metadata.name=tls".to_owned();
        assert_eq!(with_selected_name(&what).unwrap().name, "tls");
    }
}
