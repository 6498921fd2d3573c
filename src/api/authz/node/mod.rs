//! The Node authorizer: a node reaches what its own pods need, and itself.
//!
//! Reasons are upstream's (`plugin/pkg/auth/authorizer/node`). Why beside RBAC: which secret a
//! node may read is a matter of which pods run there, which no role can say.

mod graph;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::graph::{Graph, Needs, references};
use super::rbac::rule::Rule;
use super::{Authorizer, Decision};
use crate::api::context::Attributes;
use crate::client::User;
use crate::object::selector::parse_fields;

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
/// The start of a node's user name.
pub const NODE_PREFIX: &str = "system:node:";
/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The name of the node that a user is; "" for one of the nodes' group with an odd name.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_PREFIX)?;
    user.groups.iter().any(|group| group == NODES).then_some(name)
}

/// Decides for nodes; has no opinion on anyone else.
pub struct NodeAuthorizer {
    graph: Arc<Graph>,
    /// What every node may do, whichever its pods: the role `system:node`.
    rules: Vec<Rule>,
}

type Answer = std::result::Result<(), String>;

fn refuse(why: &str) -> Answer {
    Err(why.to_owned())
}

impl NodeAuthorizer {
    /// `rules` are those of the bootstrap role `system:node`.
    pub fn new(graph: Arc<Graph>, rules: Vec<Rule>) -> Self {
        Self { graph, rules }
    }

    fn decide(&self, node: &str, what: &Attributes) -> Answer {
        if let Some(gvr) = &what.gvr {
            match (gvr.group.as_str(), gvr.resource.as_str()) {
                ("", "secrets") => return self.read(node, Needs::Secret, what),
                ("", "configmaps") => return self.read(node, Needs::ConfigMap, what),
                ("", "persistentvolumeclaims") if what.subresource == "status" => {
                    return self.claim_status(node, what);
                }
                ("", "persistentvolumeclaims") => {
                    return self.get(node, what, |graph| {
                        graph.needs(node, Needs::Claim, &what.namespace, &what.name)
                    });
                }
                ("", "persistentvolumes") => {
                    return self.get(node, what, |graph| graph.needs_volume(node, &what.name));
                }
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, what, |graph| {
                        graph.needs(node, Needs::ResourceClaim, &what.namespace, &what.name)
                    });
                }
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, what, |graph| {
                        graph.names_node(node, &gvr.resource, &gvr.group, "", &what.name)
                    });
                }
                ("", "serviceaccounts") => return self.account(node, what),
                ("coordination.k8s.io", "leases") => return lease(node, what),
                ("storage.k8s.io", "csinodes") => return csi_node(node, what),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, what),
                ("", "nodes") => return own_node(node, what),
                ("", "pods") => return self.pod(node, what),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(what)) { Ok(()) } else { refuse("") }
    }

    fn related(&self, node: &str, what: &Attributes, holds: impl Fn(&Graph) -> bool) -> Answer {
        if what.name.is_empty() {
            return refuse("No Object name found");
        }
        if holds(&self.graph) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn read(&self, node: &str, needs: Needs, what: &Attributes) -> Answer {
        if !["get", "list", "watch"].contains(&what.verb.as_str()) {
            return refuse("can only read resources of this type");
        }
        if !what.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if what.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, what, |graph| graph.needs(node, needs, &what.namespace, &what.name))
    }

    fn get(&self, node: &str, what: &Attributes, holds: impl Fn(&Graph) -> bool) -> Answer {
        if what.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !what.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, what, holds)
    }

    fn claim_status(&self, node: &str, what: &Attributes) -> Answer {
        if !["update", "patch"].contains(&what.verb.as_str()) {
            return refuse("can only get/update/patch this type");
        }
        self.related(node, what, |graph| {
            graph.needs(node, Needs::Claim, &what.namespace, &what.name)
        })
    }

    fn account(&self, node: &str, what: &Attributes) -> Answer {
        if what.verb == "get" && what.subresource.is_empty() {
            return self.read(node, Needs::ServiceAccount, what);
        }
        if what.verb != "create" || what.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if what.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, what, |graph| {
            graph.needs(node, Needs::ServiceAccount, &what.namespace, &what.name)
        })
    }

    fn slice(&self, node: &str, what: &Attributes) -> Answer {
        if !what.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match what.verb.as_str() {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, what, |graph| {
                graph.names_node(node, "resourceslices", "resource.k8s.io", "", &what.name)
            }),
            "watch" | "list" | "deletecollection" if selects(what, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => refuse(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, what: &Attributes) -> Answer {
        let own = |graph: &Graph| graph.has_pod(node, &what.namespace, &what.name);
        match (what.subresource.as_str(), what.verb.as_str()) {
            ("", "get") => self.related(node, what, own),
            ("", "list" | "watch") if selects(what, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !what.name.is_empty() => self.related(node, what, own),
            ("", "list" | "watch") => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") => Ok(()),
            ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

/// Whether the request's field selector demands `field=value`.
fn selects(what: &Attributes, field: &str, value: &str) -> bool {
    let parsed = parse_fields(&what.field_selector).unwrap_or_default();
    parsed.iter().any(|one| one.field == field && one.value == value && !one.negated)
}

fn own_node(node: &str, what: &Attributes) -> Answer {
    match (what.subresource.as_str(), what.verb.as_str()) {
        // Whose object it is, NodeRestriction checks on the object itself.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if what.name == node => Ok(()),
        ("", "get" | "list" | "watch") if what.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", what.name))
        }
        _ => refuse(""),
    }
}

const WRITES: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, what: &Attributes) -> Answer {
    if !WRITES.contains(&what.verb.as_str()) {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if what.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if what.verb != "create" && what.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, what: &Attributes) -> Answer {
    if !WRITES.contains(&what.verb.as_str()) {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !what.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if what.verb != "create" && what.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, what: &Attributes) -> Decision {
        let Some(node) = node_of(&what.user) else {
            return Decision::NoOpinion(String::new());
        };
        if node.is_empty() {
            let name = &what.user.name;
            return Decision::NoOpinion(format!("unknown node for user {name:?}"));
        }
        match self.decide(node, what) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }
}

#[cfg(test)]
mod tests;
