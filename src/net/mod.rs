//! The node's network: pod links, service proxy, DNS. Netlink is used only here.
//!
//! # How a packet goes
//!
//! A pod has one interface with a /32 address. Its only neighbour is the node's gateway address,
//! which answers on the host's end of the same cable, so every packet of a pod is routed by the host
//! and meets the same hooks, also between two pods of one node ([`podnet`]).
//!
//! On its way through the host's PREROUTING (or OUTPUT, for the host's own connections) the table
//! `ip clusterd` looks the destination up: is it a Service's address, or a node port? Then it is
//! replaced by one endpoint's address ([`proxy`]). What asks for a Service that has none, or for an
//! address of the Service range that no Service has, is refused there. What asks for an unknown pod
//! meets an `unreachable` route. So nothing that is meant for the cluster leaves by the default
//! route, from the moment that [`Network::build`] has put down routes and rules, before anything is
//! known of the cluster.
//!
//! Names are answered by every node itself, on the cluster DNS address, which is an address of the
//! node's own link `clusterd0` ([`dns`]).
//!
//! # Who decides
//!
//! [`feed`] follows Services and EndpointSlices. For each one that changed, two pure functions say
//! what it means ([`proxy::plan::plan`], [`dns::records::plan`]); differences go to the kernel in one
//! transaction and to DNS as a new snapshot. The kernel's state outlives this process: at a start
//! it is read back and only what differs is changed.
//!
//! # What is ours on a host
//!
//! Links `clusterd0`, `clusterd1` and `cld…`, routes of protocol 201, the table `ip clusterd`, and
//! two labelled rules in Docker's chain DOCKER-USER: [`inventory`] lists, [`uninstall`] removes them.

pub mod cidr;
pub mod dns;
pub mod feed;
pub mod netlink;
pub mod nft;
pub mod podnet;
pub mod proxy;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::node::SharedPodNetwork;
use crate::reconcile::{Informer, Informers};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::{RESTART, Tasks};

use cidr::Cidr;
use dns::forward::Forwarder;
use dns::server::Server;
use dns::zone::{Zone, ZoneConfig};
use feed::{Feed, Marks};
use netlink::{Notices, Socket};
use podnet::links::Links;
use podnet::{docker_user, host};
use proxy::Proxy;
use proxy::layout::Ranges;
use proxy::plan::NodeInfo;

/// The port that DNS clients ask.
pub const DNS_PORT: u16 = 53;
/// The host's list of name servers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the network is built from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object's name.
    pub node_name: String,
    /// Pods of the whole cluster.
    pub cluster_cidr: Cidr,
    /// Services.
    pub service_cidr: Cidr,
    /// Where DNS answers.
    pub cluster_dns: Ipv4Addr,
    /// As in "cluster.local".
    pub cluster_domain: String,
    /// Where addresses are written down, as in DATA/network.
    pub directory: PathBuf,
    /// The name servers for the outside.
    pub resolv_conf: PathBuf,
}

/// The running network of this node.
pub struct Network {
    pods: podnet::Network,
    ready: watch::Receiver<bool>,
}

impl Network {
    /// Puts down guard routes and rules, opens DNS, and starts to follow the cluster. It answers
    /// when the host is guarded; [`Network::ready`] tells when Services are served.
    pub async fn build(
        config: Config,
        informers: &Informers,
        tasks: &Tasks,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let ranges = Ranges { cluster: config.cluster_cidr, service: config.service_cidr };
        let (range, seen) = watch::channel(None);
        let prepare = {
            let config = config.clone();
            move || open(&config, ranges, seen)
        };
        let notices = Notices::listen(NFTABLES_NOTICES)?;
        let notices = Arc::new(tokio::sync::Mutex::new(notices));
        let (pods, proxy) = tokio::task::spawn_blocking(prepare).await??;
        let port = proxy.port()?;
        let proxy = Arc::new(Mutex::new(proxy));
        let (dns, zone) = open_dns(&config, tasks, clock)?;
        let feed = Feed::new(informers, proxy.clone(), dns, zone, &config.cluster_domain);
        let (marks, ready, feed) = (feed.marks(), feed.ready(), Arc::new(feed));
        tasks.spawn("service rules", RESTART, move |stop| feed.clone().run(stop));
        tasks.spawn("ruleset notices", RESTART, move |stop| {
            watch_rules(notices.clone(), port, proxy.clone(), marks.clone(), stop)
        });
        let field = format!("metadata.name={}", config.node_name);
        let node = Informer::<Node>::start(tasks, informers.client(), "", "", &field);
        let range = Arc::new(range);
        tasks.spawn("node pod range", RESTART, move |stop| {
            follow_range(node.clone(), config.clone(), range.clone(), stop)
        });
        Ok(Self { pods, ready })
    }

    /// What the node attaches pods with.
    pub fn pods(&self) -> SharedPodNetwork {
        Arc::new(self.pods.clone())
    }

    /// Waits until every Service that exists is served.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            // The network has ended; so will its readers.
            std::future::pending::<()>().await;
        }
    }
}

/// Everything that a start needs of the kernel, in one go on a blocking thread.
fn open(
    config: &Config,
    ranges: Ranges,
    range: watch::Receiver<Option<Cidr>>,
) -> anyhow::Result<(podnet::Network, Proxy)> {
    let mut links = Links::open().context("netlink (is this process root?)")?;
    host::prepare(&mut links, &ranges, config.cluster_dns).context("prepare the network")?;
    let node = NodeInfo { name: config.node_name.clone(), dns: config.cluster_dns };
    let proxy = Proxy::open(ranges, node).context("nftables")?;
    let pods = podnet::Network::open(&config.directory, &mut links, range)?;
    if let Err(error) = docker_user::ensure() {
        tracing::warn!("Docker's firewall may drop pods' packets: {error:#}");
    }
    Ok((pods, proxy))
}

fn open_dns(
    config: &Config,
    tasks: &Tasks,
    clock: SharedClock,
) -> anyhow::Result<(Arc<Server>, Zone)> {
    let zone = Zone::new(&ZoneConfig {
        domain: config.cluster_domain.clone(),
        address: config.cluster_dns,
        ranges: vec![config.cluster_cidr, config.service_cidr],
    })?;
    let server = Arc::new(Server {
        snapshot: ArcSwap::from_pointee(zone.snapshot()),
        forwarder: Forwarder::new(config.resolv_conf.clone(), config.cluster_dns.into(), clock),
    });
    let address = SocketAddrV4::new(config.cluster_dns, DNS_PORT);
    dns::server::start(server.clone(), address, tasks).with_context(|| {
        format!("DNS on {address} (does another DNS server listen on all addresses?)")
    })?;
    Ok((server, zone))
}

/// The netlink group that tells of changes to nftables.
const NFTABLES_NOTICES: u32 = 7;

/// Mends what others break: a flushed ruleset, Docker's chain made anew.
async fn watch_rules(
    notices: Arc<tokio::sync::Mutex<Notices>>,
    own_port: u32,
    proxy: Arc<Mutex<Proxy>>,
    marks: Arc<Marks>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // Of this task alone; it outlives a restart so that no notice is lost.
    let mut notices = notices.lock().await;
    loop {
        let (mut ours, mut dockers) = (false, false);
        tokio::select! {
            heard = notices.next() => match heard? {
                Some(heard) => for notice in heard.filter(|notice| notice.port != own_port) {
                    let table = nft::table_of(notice.payload);
                    ours |= table == Some(nft::TABLE);
                    dockers |= table == Some(docker_user::TABLE);
                },
                None => (ours, dockers) = (true, true),
            },
            () = stop.cancelled() => return Ok(()),
        }
        if ours {
            let proxy = proxy.clone();
            tokio::task::spawn_blocking(move || proxy.lock().distrust()).await?;
            marks.wake();
        }
        if dockers {
            tokio::task::spawn_blocking(docker_user::ensure_nft).await??;
        }
    }
}

/// Follows the Node's pod range: its gateway is put in place before the first pod gets an address.
async fn follow_range(
    node: Informer<Node>,
    config: Config,
    range: Arc<watch::Sender<Option<Cidr>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = node.changes();
    loop {
        let spec = node.get("", &config.node_name).and_then(|node| node.spec.clone());
        let text = spec.and_then(|spec| spec.pod_cidr);
        let now: Option<Cidr> = text.map(|text| text.parse()).transpose()?;
        if let Some(pods) = now.filter(|_| now != *range.borrow()) {
            let gateway = pods.nth(1).context("the node's pod range is too small")?;
            let service = config.service_cidr;
            let set = move || host::set_gateway(&mut Links::open()?, service, gateway);
            tokio::task::spawn_blocking(set).await??;
            tracing::info!(%pods, %gateway, "the node's pod range is known");
            range.send_replace(now);
        }
        tokio::select! {
            changed = changes.changed() => changed?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// What of ours this host has, one line each; empty after [`uninstall`].
pub fn inventory() -> anyhow::Result<Vec<String>> {
    aside(inventory_now)
}

fn inventory_now() -> anyhow::Result<Vec<String>> {
    let mut found = host::inventory(&mut Links::open()?)?;
    if proxy::kernel::exists(&mut Socket::open()?)? {
        found.push(format!("nftables table ip {}", nft::TABLE));
    }
    let rules = docker_user::count()?;
    if rules > 0 {
        found.push(format!("{rules} rules in DOCKER-USER"));
    }
    Ok(found)
}

/// Removes everything of ours from this host. Pods lose their network.
pub fn uninstall() -> anyhow::Result<()> {
    aside(uninstall_now)
}

fn uninstall_now() -> anyhow::Result<()> {
    docker_user::remove()?;
    host::remove(&mut Links::open()?)?;
    proxy::kernel::remove()?;
    Ok(())
}

/// What stands in the way of the network on this host, in words; empty when nothing does.
pub fn preflight(cluster: Cidr, service: Cidr) -> Vec<String> {
    aside(move || preflight_now(cluster, service))
}

/// Runs `work` on a thread in the caller's network namespace: [`Links`] waits on a runtime of its
/// own, which a thread that drives async tasks may not.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn preflight_now(cluster: Cidr, service: Cidr) -> Vec<String> {
    let mut problems = Vec::new();
    let ranges = Ranges { cluster, service };
    if let Err(error) = Links::open()
        .map_err(Into::into)
        .and_then(|mut links| host::refuse_overlap(&mut links, &ranges))
    {
        problems.push(format!("{error:#}"));
    }
    if let Err(error) = Links::open().and_then(|mut links| links.try_pair()) {
        problems.push(format!(
            "a pair of virtual links cannot be made ({error}): the kernel needs veth (modprobe \
             veth) and this program root"
        ));
    }
    let tables = Socket::open().and_then(|mut socket| nft::tables(&mut socket));
    if let Err(error) = tables {
        problems.push(format!(
            "nftables does not answer ({error}): the kernel needs nf_tables (modprobe nf_tables) \
             and this program root"
        ));
    }
    problems
}
