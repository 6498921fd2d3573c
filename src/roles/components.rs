//! What runs beside the API server, in order: controllers, scheduler, network, node. And what the
//! host needs for it (`clusterd check`), and how to be rid of it (`clusterd uninstall`).
//!
//! Why one list: a component is started in one visible place or not at all.

use std::sync::Arc;

use super::cli::{HostOptions, UninstallOptions};
use super::streams::Nodes;
use crate::client::SharedClient;
use crate::config::Server;
use crate::controllers::{self, ControllerContext};
use crate::reconcile::Informers;
use crate::scheduler;
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;

/// Makes a client that acts as the user of this name.
pub type ClientFor = Arc<dyn Fn(&str) -> SharedClient + Send + Sync>;

/// What components are made from.
pub struct Around {
    /// The configuration.
    pub options: Server,
    /// The API server's own identity.
    pub admin: SharedClient,
    /// Everyone else's.
    pub client_for: ClientFor,
    /// Time.
    pub clock: SharedClock,
    /// Where the node makes itself known for logs and exec.
    pub nodes: Arc<Nodes>,
    /// The cluster's CA, for `kube-root-ca.crt`.
    pub ca_pem: String,
    /// The kinds that the API serves.
    pub kinds: controllers::Kinds,
}

/// Starts everything.
pub async fn start(around: &Around, tasks: &Tasks) -> anyhow::Result<()> {
    // One copy of each kind in the process, read as the API server itself.
    let informers = Informers::new(around.admin.clone(), tasks);
    let context = ControllerContext {
        informers: informers.clone(),
        client_for: around.client_for.clone(),
        clock: around.clock.clone(),
        kinds: around.kinds.clone(),
        root_ca: around.ca_pem.clone(),
        servers: api_servers(&around.options),
    };
    controllers::run(&context, tasks);
    let context = scheduler::run::Context {
        client: (around.client_for)(scheduler::run::USER),
        informers,
        clock: around.clock.clone(),
    };
    scheduler::run::start(context, tasks);
    Ok(())
}

fn api_servers(options: &Server) -> controllers::ApiServers {
    let address = options.advertise_address.unwrap_or_else(|| options.node_ip());
    controllers::ApiServers {
        service_ip: options.service_cidr.nth(1).into(),
        addresses: Arc::new(move || vec![address]),
        port: options.https_port,
    }
}

/// `clusterd check`.
pub async fn check(_options: HostOptions) -> anyhow::Result<i32> {
    anyhow::bail!("not yet")
}

/// `clusterd uninstall`.
pub async fn uninstall(_options: UninstallOptions) -> anyhow::Result<i32> {
    anyhow::bail!("not yet")
}
