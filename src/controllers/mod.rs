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
pub type Kinds = Arc<dyn Fn() -> Vec<ServedKind> + Send + Sync>;

pub use kubernetes_service::ApiServers;

use deployment::Deployments;
use endpoint_slices::Slices;
use endpoints::EndpointsOfServices;
use garbage::GarbageCollector;
use job::Jobs;
use kubernetes_service::KubernetesService;
use namespace::Namespaces;
use node_taints::NodeTaints;
use podgc::PodGarbage;
use replicas::Replicas;

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

/// `component` is "" where events name the account.
fn entry(account: &'static str, component: &'static str, controller: impl Controller) -> Entry {
    let user = format!("{ACCOUNTS}{account}");
    let component = if component.is_empty() { account } else { component };
    Entry { user, component, controller: Arc::new(controller) }
}

/// What the user names of controllers begin with.
const ACCOUNTS: &str = "system:serviceaccount:kube-system:";
/// The API server's own user.
const API_SERVER: &str = "system:apiserver";
const COLLECTOR: &str = "generic-garbage-collector";

/// All controllers. To add one: its file, its `mod` line and its line here. What some need to run
/// besides their loop runs under `tasks`.
pub fn all(context: &ControllerContext, tasks: &Tasks) -> Vec<Entry> {
    let (reads, clock) = (&context.informers, || context.clock.clone());
    let (kinds, root_ca) = (|| context.kinds.clone(), context.root_ca.clone());
    let collector = (context.client_for)(&format!("{ACCOUNTS}{COLLECTOR}"));
    let kubernetes = KubernetesService::new(context.servers.clone());
    let kubernetes = Arc::new(kubernetes) as Arc<dyn Controller>;
    vec![
        Entry { user: API_SERVER.to_owned(), component: "apiserver", controller: kubernetes },
        entry("namespace-controller", "", Namespaces::new(reads, kinds(), clock())),
        entry("service-account-controller", "", service_account::default_accounts(reads)),
        entry("root-ca-cert-publisher", "", service_account::root_ca(reads, root_ca)),
        entry(COLLECTOR, "", GarbageCollector::new(collector, kinds(), tasks)),
        entry("endpoint-controller", "", EndpointsOfServices::new(reads)),
        entry("endpointslice-controller", "endpoint-slice-controller", Slices::new(reads)),
        entry("replication-controller", "", Replicas::<ReplicationController>::new(reads, clock())),
        entry("replicaset-controller", "", Replicas::<ReplicaSet>::new(reads, clock())),
        entry("deployment-controller", "", Deployments::new(reads, clock())),
        entry("job-controller", "", Jobs::new(reads, clock())),
        entry("node-controller", "", NodeTaints::new(reads)),
        entry("pod-garbage-collector", "", PodGarbage::new(reads, clock())),
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
