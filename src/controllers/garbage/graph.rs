//! Who owns whom: a graph over the metadata of all objects, fed by watches.
//!
//! Why a graph in memory: the API knows an object's owners but not its dependents. It is only a
//! hint about what to look at: nothing is deleted before the API itself has been asked. An owner
//! that is named but was never seen stands as a virtual node until the API says whether it exists.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;

use crate::object::Gvr;

/// The finalizer of an owner whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// A uid.
pub type Uid = Arc<str>;

/// All that matters of an object here.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// `metadata`.
    pub metadata: SeenMeta,
}

/// All that matters of an object's metadata here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeenMeta {
    /// The name.
    pub name: String,
    /// The namespace, or "".
    pub namespace: String,
    /// The uid.
    pub uid: String,
    /// The revision.
    pub resource_version: String,
    /// Set when it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// What keeps it from going.
    pub finalizers: Vec<String>,
    /// Its owners.
    pub owner_references: Vec<OwnerReference>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Seen there.
    Real {
        /// The resource.
        gvr: Arc<Gvr>,
        /// The namespace, or "".
        namespace: String,
        /// The name.
        name: String,
    },
    /// Named by a dependent, not seen yet.
    Virtual {
        /// As in the reference.
        api_version: String,
        /// As in the reference.
        kind: String,
        /// As in the reference.
        name: String,
        /// The namespace of the dependent.
        namespace: String,
    },
}

/// An edge to an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    owner: Uid,
    blocks: bool,
}

/// An object in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    owners: Vec<Edge>,
    dependents: BTreeSet<Uid>,
    /// It is being deleted.
    pub deleting: bool,
    /// It waits for its dependents' end.
    pub foreground: bool,
    /// Its dependents are to be set free.
    pub orphans: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
}

impl Graph {
    /// A node.
    pub fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<(Uid, Node)> {
        let uids = self.nodes.get(uid).map(|node| node.dependents.clone()).unwrap_or_default();
        uids.into_iter().filter_map(|it| Some((it.clone(), self.get(&it)?))).collect()
    }

    /// The dependents that keep an owner in foreground deletion waiting.
    pub fn blocking(&self, uid: &str) -> Vec<(Uid, Node)> {
        let mut dependents = self.dependents(uid);
        dependents.retain(|(_, node)| node.owners.iter().any(|it| &*it.owner == uid && it.blocks));
        dependents
    }

    /// Takes in an object as it is now; the answer is what should be looked at.
    pub fn upsert(&mut self, gvr: &Arc<Gvr>, seen: &SeenMeta) -> Vec<Uid> {
        let uid: Uid = seen.uid.as_str().into();
        let mut wake = Vec::new();
        let owners: Vec<Edge> = seen
            .owner_references
            .iter()
            .map(|it| Edge {
                owner: it.uid.as_str().into(),
                blocks: it.block_owner_deletion == Some(true),
            })
            .collect();
        let deleting = seen.deletion_timestamp.is_some();
        let has = |finalizer: &str| deleting && seen.finalizers.iter().any(|it| it == finalizer);
        let old = self.nodes.remove(&uid);
        let fresh = old.as_ref().is_none_or(|old| matches!(old.place, Place::Virtual { .. }));
        let was = old.as_ref().map(|old| (old.foreground, old.orphans)).unwrap_or_default();
        let (before, dependents) = old.map(|old| (old.owners, old.dependents)).unwrap_or_default();
        let node = Node {
            place: Place::Real {
                gvr: gvr.clone(),
                namespace: seen.namespace.clone(),
                name: seen.name.clone(),
            },
            owners: owners.clone(),
            dependents,
            deleting,
            foreground: has(FOREGROUND),
            orphans: has(ORPHAN),
        };
        if node.orphans && !was.1 {
            wake.push(uid.clone());
        }
        if node.foreground && (!was.0 || fresh) {
            wake.extend(node.dependents.iter().cloned());
            wake.push(uid.clone());
        }
        if fresh && !seen.namespace.is_empty() {
            // Now that it is known where the owner is: dependents elsewhere named it wrongly.
            let elsewhere = |it: &&Uid| {
                let place = self.nodes.get(*it).map(|dependent| &dependent.place);
                matches!(place, Some(Place::Real { namespace, .. }) if *namespace != seen.namespace)
            };
            wake.extend(node.dependents.iter().filter(elsewhere).cloned());
        }
        self.nodes.insert(uid.clone(), node);
        self.relink(&uid, seen, &before, &owners, &mut wake);
        wake
    }

    /// Moves an object's edges from its old owners to its new ones.
    fn relink(
        &mut self,
        uid: &Uid,
        seen: &SeenMeta,
        before: &[Edge],
        now: &[Edge],
        wake: &mut Vec<Uid>,
    ) {
        for edge in before {
            let kept = now.iter().find(|it| it.owner == edge.owner);
            if kept.is_none() {
                self.unlink(uid, &edge.owner);
            }
            // An owner in foreground deletion waits for one less.
            let freed = edge.blocks && kept.is_none_or(|it| !it.blocks);
            if freed && self.nodes.get(&edge.owner).is_some_and(|owner| owner.foreground) {
                wake.push(edge.owner.clone());
            }
        }
        for reference in &seen.owner_references {
            let owner: Uid = reference.uid.as_str().into();
            let fresh = !before.iter().any(|it| it.owner == owner);
            match self.nodes.get_mut(&owner) {
                Some(node) => {
                    node.dependents.insert(uid.clone());
                    // The reference may name another object than the one of this uid, or one that
                    // is on its way out: the API will tell.
                    let fits = match &node.place {
                        Place::Real { name, namespace, .. } => {
                            *name == reference.name
                                && (namespace.is_empty() || *namespace == seen.namespace)
                        }
                        Place::Virtual { .. } => true,
                    };
                    if fresh && (!fits || node.foreground) {
                        wake.push(uid.clone());
                    }
                }
                None => {
                    let node = Node {
                        place: Place::Virtual {
                            api_version: reference.api_version.clone(),
                            kind: reference.kind.clone(),
                            name: reference.name.clone(),
                            namespace: seen.namespace.clone(),
                        },
                        owners: Vec::new(),
                        dependents: BTreeSet::from([uid.clone()]),
                        deleting: false,
                        foreground: false,
                        orphans: false,
                    };
                    self.nodes.insert(owner.clone(), node);
                    wake.push(owner);
                }
            }
        }
    }

    fn unlink(&mut self, uid: &Uid, owner: &Uid) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(uid);
        // A virtual owner that nobody names any longer need not be known.
        if node.dependents.is_empty() && matches!(node.place, Place::Virtual { .. }) {
            self.nodes.remove(owner);
        }
    }

    /// Takes out an object that is gone; the answer is what should be looked at.
    pub fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some((uid, node)) = self.nodes.remove_entry(uid) else { return Vec::new() };
        let mut wake: Vec<Uid> = node.dependents.into_iter().collect();
        for edge in &node.owners {
            self.unlink(&uid, &edge.owner);
            if self.nodes.get(&edge.owner).is_some_and(|owner| owner.foreground) {
                wake.push(edge.owner.clone());
            }
        }
        wake
    }

    /// What should be looked at of a resource when nothing has been yet: objects that end in a way
    /// of their own, and owners that were named but not seen. (`watch` comes after all feeds have
    /// synced, so the latter are few.)
    pub fn pending(&self, gvr: &Gvr) -> Vec<Uid> {
        let of = self.of_resource(gvr);
        let real = of.iter().filter(|uid| {
            let node = &self.nodes[*uid];
            node.foreground || node.orphans
        });
        let owners = of.iter().flat_map(|uid| &self.nodes[uid].owners).map(|edge| &edge.owner);
        let unseen = owners.filter(|uid| {
            let place = self.nodes.get(*uid).map(|node| &node.place);
            matches!(place, Some(Place::Virtual { .. }))
        });
        real.chain(unseen).cloned().collect()
    }

    /// The uids of all objects of a resource.
    pub fn of_resource(&self, wanted: &Gvr) -> BTreeSet<Uid> {
        let is = |node: &Node| matches!(&node.place, Place::Real { gvr, .. } if **gvr == *wanted);
        self.nodes.iter().filter(|(_, node)| is(node)).map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn seen(uid: &str, owners: &[(&str, bool)], more: Value) -> SeenMeta {
        let references: Vec<Value> = owners
            .iter()
            .map(|(uid, blocks)| {
                json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid,
                "blockOwnerDeletion": blocks})
            })
            .collect();
        let mut value = json!({"name": uid, "namespace": "ns", "uid": uid,
            "ownerReferences": references});
        for (key, part) in more.as_object().into_iter().flatten() {
            value[key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn texts(uids: Vec<Uid>) -> Vec<String> {
        uids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_owner_never_seen_is_asked_about_once() {
        let (mut graph, gvr) = (Graph::default(), Arc::new(Gvr::new("", "v1", "pods")));
        assert_eq!(texts(graph.upsert(&gvr, &seen("a", &[("gone", true)], json!({})))), ["gone"]);
        assert!(graph.upsert(&gvr, &seen("b", &[("gone", true)], json!({}))).is_empty());
        assert!(matches!(graph.get("gone").unwrap().place, Place::Virtual { .. }));
        assert_eq!(texts(graph.remove("gone")), ["a", "b"]);
    }

    #[test]
    fn foreground_deletion_wakes_dependents_and_then_the_owner() {
        let (mut graph, gvr) = (Graph::default(), Arc::new(Gvr::new("", "v1", "pods")));
        graph.upsert(&gvr, &seen("owner", &[], json!({})));
        graph.upsert(&gvr, &seen("a", &[("owner", true)], json!({})));
        graph.upsert(&gvr, &seen("b", &[("owner", false)], json!({})));
        let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": [FOREGROUND]});
        let woken = graph.upsert(&gvr, &seen("owner", &[], ending.clone()));
        assert_eq!(texts(woken), ["a", "b", "owner"]);
        assert!(graph.upsert(&gvr, &seen("owner", &[], ending)).is_empty());
        assert_eq!(graph.blocking("owner").len(), 1);
        assert_eq!(texts(graph.remove("a")), ["owner"]);
        assert!(graph.blocking("owner").is_empty());
        assert_eq!(graph.dependents("owner").len(), 1);
        assert_eq!(texts(graph.remove("owner")), ["b"]);
    }

    #[test]
    fn released_objects_are_no_dependents_any_more() {
        let (mut graph, gvr) = (Graph::default(), Arc::new(Gvr::new("", "v1", "pods")));
        graph.upsert(&gvr, &seen("owner", &[], json!({})));
        graph.upsert(&gvr, &seen("a", &[("owner", true)], json!({})));
        graph.upsert(&gvr, &seen("a", &[], json!({})));
        assert!(graph.remove("owner").is_empty());
    }
}
