//! The controllers: one file or folder each and one line in the list.
//!
//! Why each has a user of its own: a controller passes admission and authorization like anyone,
//! under upstream's service-account name for it, so the bootstrap roles are tested by use.

mod claim;
mod deployment;
mod pods;
mod replicas;

use std::sync::Arc;

use crate::client::SharedClient;
use crate::reconcile::driver::{self, Controller};
use crate::reconcile::{Executor, Informers, Recorder};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;

/// Makes a client that acts as the user of this name.
pub type ClientFor = Arc<dyn Fn(&str) -> SharedClient + Send + Sync>;

/// What controllers are made from.
#[derive(Clone)]
pub struct ControllerContext {
    /// The shared copies of what they read.
    pub informers: Informers,
    /// Their clients, by user name.
    pub client_for: ClientFor,
    /// Time, for deadlines and what is written into objects.
    pub clock: SharedClock,
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
    let user = format!("system:serviceaccount:kube-system:{account}");
    Entry { user, component, controller: Arc::new(controller) }
}

/// All controllers. To add one: its file, its `mod` line and its line here.
#[rustfmt::skip] // a table
pub fn all(context: &ControllerContext) -> Vec<Entry> {
    let (informers, clock) = (&context.informers, || context.clock.clone());
    vec![
        entry("replicaset-controller", "replicaset-controller", replicas::Replicas::<ReplicaSet>::new(informers, clock())),
        entry("replication-controller", "replication-controller", replicas::Replicas::<ReplicationController>::new(informers, clock())),
        entry("deployment-controller", "deployment-controller", deployment::Deployments::new(informers, clock())),
    ]
}

/// Starts all controllers under `tasks`; stopping these stops them (leadership is the caller's).
pub fn run(context: &ControllerContext, tasks: &Tasks) {
    for Entry { user, component, controller } in all(context) {
        let client = (context.client_for)(&user);
        let recorder = Recorder::new(client.clone(), context.clock.clone(), tasks, component, "");
        driver::start(
            tasks,
            controller,
            Executor::new(client, context.informers.clone(), recorder),
        );
    }
}
