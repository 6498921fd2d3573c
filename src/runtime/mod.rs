//! The node: runs the pods bound to it on a container engine and says how they are.
//!
//! How it hangs together: [`kubelet`] watches pods and the engine's events and passes both to one
//! [`worker`] a pod; a worker keeps what it knows, asks [`plan`] (pure) what to do next, carries
//! the steps out beside itself, and lets [`status`] (pure) say what to report. What a container is made
//! of comes from small pure parts ([`env`], [`security`], [`resources`], [`files`], [`volumes`]),
//! and [`engine`] is the only way to the containers. [`node`] keeps the Node object and its lease;
//! [`server`] answers logs, exec and attach.
//!
//! Why nothing is kept in memory that matters: containers carry labels that say whose they are and
//! which attempt, so a new process adopts them as they run.

pub mod admission;
pub mod assemble;
pub mod carried;
pub mod docker;
pub mod engine;
pub mod env;
pub mod exec;
pub mod fake;
pub mod files;
pub mod hooks;
pub mod httpget;
pub mod images;
pub mod kubelet;
pub mod leftovers;
pub mod logs;
pub mod node;
pub mod plan;
pub mod pods;
pub mod probes;
pub mod resources;
pub mod security;
pub mod server;
pub mod sources;
pub mod stats;
pub mod status;
pub mod volumes;
pub mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use parking_lot::RwLock;

use crate::client::SharedClient;
use crate::client::node::SharedPodNetwork;
use crate::reconcile::{EventType, Informer, Object, Recorder};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;
use engine::{EngineInfo, SharedEngine};
use pods::{Model, Unit};

pub use kubelet::Node;

/// The labels of our containers.
pub mod labels {
    /// The node that made it; its presence makes a container ours.
    pub const NODE: &str = "io.clusterd.node";
    /// The pod's uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// The pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// The container's name; [`SANDBOX_NAME`] for a sandbox.
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// What the sandbox has as container name, as upstream's Docker runtime did.
    pub const SANDBOX_NAME: &str = "POD";
    /// How many of this container (or sandbox) there were before.
    pub const ATTEMPT: &str = "io.clusterd.attempt";
    /// What the container was made from, to see a changed spec.
    pub const HASH: &str = "io.clusterd.hash";
    /// The image as the status shows it.
    pub const IMAGE: &str = "io.clusterd.image";
    /// The seconds of grace, for when the pod is no longer known.
    pub const GRACE: &str = "io.clusterd.grace-seconds";
}

/// What a node has to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Where it keeps its files; volumes are below it.
    pub data_dir: PathBuf,
    /// The address of the cluster's DNS, if there is one.
    pub cluster_dns: Option<IpAddr>,
    /// As in "cluster.local".
    pub cluster_domain: String,
    /// The addresses that pods of this node get, for the Node object; may be empty.
    pub pod_cidrs: Vec<String>,
    /// Labels of the node beyond the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<core::Taint>,
    /// The port of the kubelet's server, as the Node object tells it.
    pub port: u16,
    /// `status.nodeInfo.kubeletVersion`, as in "v1.36.2+clusterd".
    pub version: String,
}

impl NodeConfig {
    /// The folder of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }
}

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system that holds the data directory.
    pub disk: i64,
    /// The lowest `oom_score_adj` that may be set here.
    pub oom_floor: i64,
}

/// What all parts of a node share.
pub struct Host {
    /// The configuration.
    pub config: NodeConfig,
    /// The API, as this node.
    pub client: SharedClient,
    /// The containers.
    pub engine: SharedEngine,
    /// The pods' network.
    pub network: SharedPodNetwork,
    /// Time.
    pub clock: SharedClock,
    /// The node's tasks.
    pub tasks: Tasks,
    /// Events about pods and the node.
    pub recorder: Recorder,
    /// ConfigMaps and Secrets.
    pub sources: sources::Sources,
    /// All Services.
    pub services: Informer<core::Service>,
    /// The pods of this node.
    pub pods: Informer<core::Pod>,
    /// This node's own object.
    pub nodes: Informer<core::Node>,
    /// Images and their pulls.
    pub images: images::Images,
    /// What the machine has.
    pub machine: Machine,
    /// What the engine last said of itself.
    pub engine_info: RwLock<EngineInfo>,
}

/// A shared host.
pub type SharedHost = Arc<Host>;

impl Host {
    /// What downward references may show of the node.
    pub fn facts(&self) -> env::NodeFacts {
        env::NodeFacts {
            name: self.config.name.clone(),
            ip: self.config.ip.to_string(),
            allocatable: node::allocatable(&self.machine),
        }
    }

    /// Records an event about a pod.
    pub fn pod_event(&self, model: &Model, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&reference(model, None), kind, reason, message);
    }

    /// Records an event about a container of a pod.
    pub fn unit_event(
        &self,
        model: &Model,
        unit: &Unit,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        self.recorder.event(&reference(model, Some(unit)), kind, reason, message);
    }
}

fn reference(model: &Model, unit: Option<&Unit>) -> core::ObjectReference {
    let metadata = &model.pod.metadata;
    core::ObjectReference {
        api_version: Some("v1".to_owned()),
        field_path: unit.map(Unit::field_path),
        kind: Some("Pod".to_owned()),
        name: Some(model.pod.name().to_owned()),
        namespace: Some(model.pod.namespace().to_owned()),
        resource_version: metadata.resource_version.clone(),
        uid: Some(model.pod.uid().to_owned()),
    }
}
