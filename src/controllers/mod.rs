//! The controllers: one file or folder each and one line in the list.
//!
//! Why each has a user of its own: a controller passes admission and authorization like anyone,
//! under upstream's service-account name for it, so the bootstrap roles are tested by use.

mod claim;
mod deployment;
mod endpoint_slices;
mod endpoints;
mod garbage;
mod job;
mod kubernetes_service;
mod namespace;
mod node_taints;
mod podgc;
mod pods;
mod replicas;
mod service_account;
mod service_pods;

use std::sync::Arc;

use crate::client::SharedClient;
use crate::object::Gvr;
use crate::reconcile::driver::{self, Controller};
use crate::reconcile::{Executor, Informers, Recorder};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;

/// Makes a client that acts as the user of this name.
pub type ClientFor = Arc<dyn Fn(&str) -> SharedClient + Send + Sync>;

/// A kind that the API serves.
#[derive(Clone, Debug)]
pub struct ServedKind {
    /// The resource.
    pub gvr: Gvr,
    /// The kind's name.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Whether it can be listed, watched and deleted.
    pub deletable: bool,
}

/// The kinds that the API serves now, custom ones included; each resource in one version.
pub type Kinds = Arc<dyn Fn() -> Arc<Vec<ServedKind>> + Send + Sync>;

pub use kubernetes_service::ApiServers;

/// What controllers are made from.
#[derive(Clone)]
pub struct ControllerContext {
    /// The shared copies of what they read.
    pub informers: Informers,
    /// Their clients, by user name.
    pub client_for: ClientFor,
    /// Time, for deadlines and what is written into objects.
    pub clock: SharedClock,
    /// What there is to collect and to empty namespaces of.
    pub kinds: Kinds,
    /// The cluster's CA certificate (PEM), published in each namespace.
    pub root_ca: String,
    /// Where the API servers are, for the Service `kubernetes`.
    pub servers: ApiServers,
}

/// A line of the list.
pub struct Entry {
    /// The user it acts as.
    pub user: String,
    /// The component that its events name.
    pub component: &'static str,
    /// The loop.
    pub controller: Arc<dyn Controller>,
}

fn entry(account: &str, component: &'static str, controller: impl Controller) -> Entry {
    let user = format!("{ACCOUNTS}{account}");
    Entry { user, component, controller: Arc::new(controller) }
}

/// What the user names of controllers begin with.
const ACCOUNTS: &str = "system:serviceaccount:kube-system:";
/// The API server's own user.
const API_SERVER: &str = "system:apiserver";
const COLLECTOR: &str = "generic-garbage-collector";

/// All controllers. To add one: its file, its `mod` line and its line here. What some need to run
/// besides their loop runs under `tasks`.
#[rustfmt::skip] // a table
pub fn all(context: &ControllerContext, tasks: &Tasks) -> Vec<Entry> {
    let (informers, clock, kinds) = (&context.informers, || context.clock.clone(), || context.kinds.clone());
    let collector = (context.client_for)(&format!("{ACCOUNTS}{COLLECTOR}"));
    let kubernetes = kubernetes_service::KubernetesService::new(context.servers.clone());
    vec![
        Entry { user: API_SERVER.to_owned(), component: "apiserver", controller: Arc::new(kubernetes) },
        entry("namespace-controller", "namespace-controller", namespace::Namespaces::new(informers, kinds(), clock())),
        entry("service-account-controller", "serviceaccount-controller", service_account::default_accounts(informers)),
        entry("root-ca-cert-publisher", "root-ca-cert-publisher", service_account::root_ca(informers, context.root_ca.clone())),
        entry(COLLECTOR, "garbage-collector-controller", garbage::GarbageCollector::new(collector, kinds(), tasks)),
        entry("endpoint-controller", "endpoint-controller", endpoints::EndpointsOfServices::new(informers)),
        entry("endpointslice-controller", "endpoint-slice-controller", endpoint_slices::Slices::new(informers)),
        entry("replication-controller", "replication-controller", replicas::Replicas::<ReplicationController>::new(informers, clock())),
        entry("replicaset-controller", "replicaset-controller", replicas::Replicas::<ReplicaSet>::new(informers, clock())),
        entry("deployment-controller", "deployment-controller", deployment::Deployments::new(informers, clock())),
        entry("job-controller", "job-controller", job::Jobs::new(informers, clock())),
        entry("node-controller", "node-controller", node_taints::NodeTaints::new(informers)),
        entry("pod-garbage-collector", "pod-garbage-collector", podgc::PodGarbage::new(informers, clock())),
    ]
}

/// Starts all controllers under `tasks`; stopping these stops them (leadership is the caller's).
pub fn run(context: &ControllerContext, tasks: &Tasks) {
    for Entry { user, component, controller } in all(context, tasks) {
        let client = (context.client_for)(&user);
        let recorder = Recorder::new(client.clone(), context.clock.clone(), tasks, component, "");
        driver::start(
            tasks,
            controller,
            Executor::new(client, context.informers.clone(), recorder),
        );
    }
}
