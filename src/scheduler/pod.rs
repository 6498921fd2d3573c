//! A pod as the scheduler sees it: everything a plug-in asks of it, worked out once.
//!
//! Why: a pod is compared with thousands of nodes; parsing its quantities once is enough.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Toleration};

use crate::reconcile::predicates::{self, Amounts, HostPort};

/// CPU (millis) that a container without a request counts for in scoring (upstream's
/// `DefaultMilliCPURequest`).
pub const SCORE_CPU_MILLIS: i64 = 100;
/// Bytes that a container without a memory request counts for in scoring.
pub const SCORE_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// A pod, prepared for comparison with nodes.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// `metadata.uid`.
    pub uid: String,
    /// Namespace and name.
    pub key: (String, String),
    /// `spec.priority`.
    pub priority: i32,
    /// What it asks for, by resource.
    pub requests: Amounts,
    /// (CPU millis, memory bytes) for scoring, containers without requests counted at a default.
    pub weighed: (i64, i64),
    /// The host ports it claims.
    pub host_ports: Vec<HostPort>,
    /// What it tolerates.
    pub tolerations: Vec<Toleration>,
}

impl PodInfo {
    /// Prepares `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref();
        let meta = &pod.metadata;
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            key: (
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            requests: predicates::pod_requests(&pod),
            weighed: weighed(&pod),
            host_ports: predicates::host_ports(&pod),
            tolerations: spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default(),
            pod,
        }
    }

    /// The node the pod is bound to, or "".
    pub fn node(&self) -> &str {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
    }
}

/// The pod's requests with a default for each container that has none; inits raise the sum.
fn weighed(pod: &Pod) -> (i64, i64) {
    let Some(spec) = &pod.spec else { return (0, 0) };
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let requests = container.resources.as_ref().and_then(|all| all.requests.as_ref());
        let ask = |name: &str, default| {
            let given = requests.and_then(|all| all.get(name));
            given.map_or(default, |have| predicates::amount(name, have))
        };
        (ask("cpu", SCORE_CPU_MILLIS), ask("memory", SCORE_MEMORY_BYTES))
    };
    let sum = |(cpu, memory): (i64, i64), (more, bytes)| (cpu + more, memory + bytes);
    let together = spec.containers.iter().map(of).fold((0, 0), sum);
    let inits = spec.init_containers.iter().flatten().map(of);
    inits.fold(together, |(cpu, memory), (more, bytes)| (cpu.max(more), memory.max(bytes)))
}
