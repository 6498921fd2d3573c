//! Which objects belong to which node: by its pods, their volumes and their accounts.
//!
//! Why only pods are indexed: everything else hangs on a pod by name and is one look-up away when
//! asked; and a node has some hundred pods at most. The index is persistent: a change shares all
//! but a few of its nodes with the one before, and readers swap without a lock.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::StreamExt;
use imbl::{HashMap, OrdMap};

use crate::api::objects::{Change, SharedObjects};
use crate::object::{Value, meta};
use crate::stdx::tasks::{RESTART, Tasks};

/// Changes that are taken in before the index is published.
const CHANGES_PER_INDEX_MAX: usize = 256;

/// A kind of thing that a pod refers to, all in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    /// A ResourceClaim.
    ResourceClaim,
    /// Its ServiceAccount.
    ServiceAccount,
}

type Names = (String, String);

/// A pod's node, and what the pod needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pod {
    node: String,
    needs: HashSet<(Needs, String)>,
}

/// An index of pods by node.
#[derive(Clone, Default)]
struct Index {
    pods: HashMap<Names, Arc<Pod>>,
    by_node: HashMap<String, OrdMap<Names, Arc<Pod>>>,
}

impl Index {
    fn remove(&mut self, names: &Names) {
        let Some(pod) = self.pods.remove(names) else { return };
        if let Some(pods) = self.by_node.get_mut(&pod.node) {
            pods.remove(names);
            if pods.is_empty() {
                self.by_node.remove(&pod.node);
            }
        }
    }

    fn put(&mut self, object: &Value) {
        let names = (meta::namespace(object).to_owned(), meta::name(object).to_owned());
        let pod = read(object);
        if self.pods.get(&names).is_some_and(|old| **old == pod) {
            return;
        }
        self.remove(&names);
        if pod.node.is_empty() {
            return;
        }
        let pod = Arc::new(pod);
        self.by_node.entry(pod.node.clone()).or_default().insert(names.clone(), pod.clone());
        self.pods.insert(names, pod);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Reset(all) => {
                *self = Self::default();
                for object in all {
                    self.put(&object);
                }
            }
            Change::Put(object) => self.put(&object),
            Change::Gone { namespace, name } => self.remove(&(namespace, name)),
        }
    }
}

/// Answers which objects a node's pods need.
pub struct Graph {
    index: ArcSwap<Index>,
    objects: SharedObjects,
}

impl Graph {
    /// From the objects as they are now.
    pub fn load(objects: SharedObjects) -> Self {
        let mut index = Index::default();
        index.apply(Change::Reset(objects.list("pods", "", "")));
        Self { index: ArcSwap::from_pointee(index), objects }
    }

    /// From the objects as they are now, and as they will be.
    pub fn start(objects: SharedObjects, tasks: &Tasks) -> Arc<Self> {
        let this = Arc::new(Self::load(objects));
        let graph = this.clone();
        tasks.spawn("node-authorizer-index", RESTART, move |stop| {
            let graph = graph.clone();
            async move {
                let changes = graph.objects.follow("pods", "");
                let mut changes = changes.ready_chunks(CHANGES_PER_INDEX_MAX);
                loop {
                    let batch = tokio::select! {
                        batch = changes.next() => batch,
                        () = stop.cancelled() => return Ok(()),
                    };
                    let Some(batch) = batch else { anyhow::bail!("the changes ended") };
                    let mut index = Index::clone(&graph.index.load());
                    for change in batch {
                        index.apply(change);
                    }
                    graph.index.store(Arc::new(index));
                }
            }
        });
        this
    }

    /// Whether a pod runs on a node.
    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let names = (namespace.to_owned(), name.to_owned());
        let indexed = self.index.load().pods.get(&names).is_some_and(|pod| pod.node == node);
        indexed || {
            let pod = self.objects.get("pods", "", namespace, name);
            pod.is_some_and(|pod| meta::text(&pod, &["spec", "nodeName"]) == node)
        }
    }

    /// Whether a pod on the node needs this object.
    pub fn needs(&self, node: &str, what: Needs, namespace: &str, name: &str) -> bool {
        let index = self.index.load();
        let key = (what, name.to_owned());
        let indexed = index.by_node.get(node).is_some_and(|pods| {
            pods.iter().any(|((at, _), pod)| at == namespace && pod.needs.contains(&key))
                || (what == Needs::Secret && self.volume_needs(node, pods, namespace, name))
        });
        indexed || self.fresh(node, namespace, |pod| pod.needs.contains(&key))
    }

    /// Looks at the stored pods of a namespace. A kubelet may ask for a pod's secrets before the
    /// index has seen the pod; a refusal would cost the pod a back-off, so it is worth a scan.
    fn fresh(&self, node: &str, namespace: &str, holds: impl Fn(&Pod) -> bool) -> bool {
        let pods = self.objects.list("pods", "", namespace);
        let mine = |pod: &&Arc<Value>| meta::text(pod, &["spec", "nodeName"]) == node;
        pods.iter().filter(mine).any(|pod| holds(&read(pod)))
    }

    /// Whether a pod on the node uses the claim that a volume is bound to.
    pub fn needs_volume(&self, node: &str, name: &str) -> bool {
        let volume = self.objects.get("persistentvolumes", "", "", name);
        volume.is_some_and(|volume| {
            let claim = |field: &str| meta::text(&volume, &["spec", "claimRef", field]).to_owned();
            let (namespace, claim) = (claim("namespace"), claim("name"));
            !claim.is_empty() && self.needs(node, Needs::Claim, &namespace, &claim)
        })
    }

    /// Whether a volume of the node's pods names this secret.
    fn volume_needs(
        &self,
        node: &str,
        pods: &OrdMap<Names, Arc<Pod>>,
        namespace: &str,
        name: &str,
    ) -> bool {
        pods.iter().any(|((at, _), pod)| {
            pod.needs.iter().filter(|(needs, _)| *needs == Needs::Claim).any(|(_, claim)| {
                let claim = self.objects.get("persistentvolumeclaims", "", at, claim);
                let volume = claim
                    .as_ref()
                    .map(|claim| meta::text(claim, &["spec", "volumeName"]))
                    .filter(|volume| !volume.is_empty())
                    .and_then(|volume| self.objects.get("persistentvolumes", "", "", volume));
                volume.is_some_and(|volume| {
                    secrets_of_volume(&volume, at)
                        .contains(&(namespace.to_owned(), name.to_owned()))
                        && self.needs_volume(node, meta::name(&volume))
                })
            })
        })
    }

    /// A field of a cluster-scoped object that names a node.
    pub fn names_node(
        &self,
        node: &str,
        resource: &str,
        group: &str,
        namespace: &str,
        name: &str,
    ) -> bool {
        let object = self.objects.get(resource, group, namespace, name);
        object.is_some_and(|object| meta::text(&object, &["spec", "nodeName"]) == node)
    }
}

fn list<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    meta::at(object, path).and_then(Value::as_array).into_iter().flatten()
}

/// Secrets that a kubelet must read to mount a volume (upstream's `VisitPVSecretNames`), as
/// (namespace, name); `claim_namespace` stands in where the reference has none.
fn secrets_of_volume(volume: &Value, claim_namespace: &str) -> Vec<Names> {
    const REFERENCES: [(&str, &str); 9] = [
        ("azureFile", "secretName"),
        ("cephfs", "secretRef"),
        ("cinder", "secretRef"),
        ("flexVolume", "secretRef"),
        ("rbd", "secretRef"),
        ("scaleIO", "secretRef"),
        ("iscsi", "secretRef"),
        ("csi", "nodePublishSecretRef"),
        ("csi", "nodeStageSecretRef"),
    ];
    const MORE: [(&str, &str); 2] = [("csi", "nodeExpandSecretRef"), ("storageos", "secretRef")];
    let mut names = Vec::new();
    for (source, field) in REFERENCES.into_iter().chain(MORE) {
        let Some(reference) = meta::at(volume, &["spec", source, field]) else { continue };
        let (namespace, name) = match reference.as_str() {
            Some(name) => (meta::text(volume, &["spec", source, "secretNamespace"]), name),
            None => (meta::text(reference, &["namespace"]), meta::text(reference, &["name"])),
        };
        let namespace = if namespace.is_empty() { claim_namespace } else { namespace };
        if !name.is_empty() {
            names.push((namespace.to_owned(), name.to_owned()));
        }
    }
    names
}

/// What a pod says of itself.
fn read(object: &Value) -> Pod {
    let node = meta::text(object, &["spec", "nodeName"]).to_owned();
    let is_mirror = meta::annotations(object)
        .is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"));
    // A mirror pod is written by its node, which could name anything in it.
    let needs = if is_mirror { HashSet::new() } else { references(object) };
    Pod { node, needs }
}

/// The objects that a pod names.
pub fn references(pod: &Value) -> HashSet<(Needs, String)> {
    let mut needs = HashSet::new();
    let mut add = |what: Needs, name: &str| {
        if !name.is_empty() {
            needs.insert((what, name.to_owned()));
        }
    };
    add(Needs::ServiceAccount, meta::text(pod, &["spec", "serviceAccountName"]));
    for secret in list(pod, &["spec", "imagePullSecrets"]) {
        add(Needs::Secret, meta::text(secret, &["name"]));
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(pod, &["spec", containers]) {
            container_needs(container, &mut add);
        }
    }
    for volume in list(pod, &["spec", "volumes"]) {
        volume_needs(meta::name(pod), volume, &mut add);
    }
    for claim in list(pod, &["spec", "resourceClaims"]) {
        add(Needs::ResourceClaim, meta::text(claim, &["resourceClaimName"]));
    }
    for status in list(pod, &["status", "resourceClaimStatuses"]) {
        add(Needs::ResourceClaim, meta::text(status, &["resourceClaimName"]));
    }
    let extended = ["status", "extendedResourceClaimStatus", "resourceClaimName"];
    add(Needs::ResourceClaim, meta::text(pod, &extended));
    needs
}

fn container_needs(container: &Value, add: &mut impl FnMut(Needs, &str)) {
    for source in list(container, &["envFrom"]) {
        add(Needs::Secret, meta::text(source, &["secretRef", "name"]));
        add(Needs::ConfigMap, meta::text(source, &["configMapRef", "name"]));
    }
    for variable in list(container, &["env"]) {
        add(Needs::Secret, meta::text(variable, &["valueFrom", "secretKeyRef", "name"]));
        add(Needs::ConfigMap, meta::text(variable, &["valueFrom", "configMapKeyRef", "name"]));
    }
}

fn volume_needs(pod: &str, volume: &Value, add: &mut impl FnMut(Needs, &str)) {
    const SECRETS: [[&str; 2]; 9] = [
        ["secret", "secretName"],
        ["azureFile", "secretName"],
        ["cephfs", "secretRef"],
        ["cinder", "secretRef"],
        ["flexVolume", "secretRef"],
        ["rbd", "secretRef"],
        ["scaleIO", "secretRef"],
        ["iscsi", "secretRef"],
        ["storageos", "secretRef"],
    ];
    for path in SECRETS {
        add(Needs::Secret, meta::text(volume, &path));
        add(Needs::Secret, meta::text(volume, &[path[0], path[1], "name"]));
    }
    add(Needs::Secret, meta::text(volume, &["csi", "nodePublishSecretRef", "name"]));
    add(Needs::ConfigMap, meta::text(volume, &["configMap", "name"]));
    for source in list(volume, &["projected", "sources"]) {
        add(Needs::Secret, meta::text(source, &["secret", "name"]));
        add(Needs::ConfigMap, meta::text(source, &["configMap", "name"]));
    }
    add(Needs::Claim, meta::text(volume, &["persistentVolumeClaim", "claimName"]));
    if volume.get("ephemeral").is_some_and(Value::is_object) {
        add(Needs::Claim, &format!("{pod}-{}", meta::text(volume, &["name"])));
    }
}
