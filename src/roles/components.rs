//! What runs beside the API server, in order: controllers, scheduler, network, node.
//!
//! Why one list: a component is started in one visible place or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::streams::Nodes;
use crate::client::SharedClient;
use crate::config::Server;
use crate::controllers::{self, ControllerContext};
use crate::reconcile::Informers;
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;
use crate::{net, runtime, scheduler};

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
        informers: informers.clone(),
        clock: around.clock.clone(),
    };
    scheduler::run::start(context, tasks);
    if !around.options.disable_agent {
        start_node(around, &informers, tasks).await?;
    }
    Ok(())
}

/// The length of the range that each node's pods get addresses from.
const NODE_RANGE_BITS: u8 = 24;

/// The node: its network first, so that nothing of a pod ever leaves the host unguarded.
async fn start_node(around: &Around, informers: &Informers, tasks: &Tasks) -> anyhow::Result<()> {
    let options = &around.options;
    let name = options.node_name()?;
    let config = net::Config {
        node_name: name.clone(),
        cluster_cidr: options.cluster_cidr,
        service_cidr: options.service_cidr,
        cluster_dns: options.cluster_dns,
        cluster_domain: options.cluster_domain.clone(),
        directory: options.data_dir.join("network"),
        resolv_conf: net::RESOLV_CONF.into(),
    };
    let network = net::Network::build(config, informers, tasks, around.clock.clone()).await?;
    let range = options.cluster_cidr.part(NODE_RANGE_BITS, 0);
    let config = runtime::NodeConfig {
        name: name.clone(),
        ip: options.node_ip(),
        data_dir: options.data_dir.join("node"),
        cluster_dns: Some(options.cluster_dns.into()),
        cluster_domain: options.cluster_domain.clone(),
        pod_cidrs: range.iter().map(ToString::to_string).collect(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        port: options.kubelet_port,
        version: crate::api::server::git_version(),
    };
    let client = (around.client_for)(&format!("system:node:{name}"));
    let engine = Arc::new(runtime::docker::DockerEngine::new(&options.docker_host)?);
    let clock = around.clock.clone();
    let node = runtime::Node::build(config, client, engine, network.pods(), clock, tasks)?;
    around.nodes.set(&name, node.streams());
    node.start();
    // Ready means that Services answer.
    network.ready().await;
    Ok(())
}

fn api_servers(options: &Server) -> controllers::ApiServers {
    let address = options.advertise_address.unwrap_or_else(|| options.node_ip());
    controllers::ApiServers {
        service_ip: options.service_ip().into(),
        addresses: Arc::new(move || vec![address]),
        port: options.https_port,
    }
}
