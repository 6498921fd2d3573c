//! The pod network: gives a pod its interface, its address and its routes.
//!
//! Why idempotent throughout: the node calls `attach` again after a restart of either side, and a
//! step that was cut short is repaired by doing all of them again. The truth is in the kernel and
//! in one small file an address (`ipam`); nothing is held in memory that could not be read again.

mod connection;
pub mod docker_user;
pub mod host;
pub mod ipam;
pub mod links;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::watch;

use crate::client::node::{PodAddresses, PodNetwork, PodRef};
use crate::net::cidr::Cidr;

use ipam::{Ipam, Lease};
use links::{Links, Notices, POD_INTERFACE, address_of_link, host_mac, pod_link, pod_mac};

/// How long a pod waits for the node's pod range before its attach fails (and is tried again).
const RANGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long an attach waits for its link to carry packets, between two notices about links.
const RUNNING_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pod network of this node.
#[derive(Clone)]
pub struct Network {
    ipam: Arc<Mutex<Ipam>>,
    range: watch::Receiver<Option<Cidr>>,
}

impl Network {
    /// Reads what is there: address files in `directory`, links in the kernel. `range` is the
    /// node's pod range, once it is known.
    pub fn open(
        directory: &Path,
        links: &mut Links,
        range: watch::Receiver<Option<Cidr>>,
    ) -> anyhow::Result<Self> {
        let mut live = Vec::new();
        for link in links.links()? {
            let Some(address) = address_of_link(&link.name) else { continue };
            if Lease::from_label(&link.alias).is_some() {
                live.push((address, link.alias));
            } else {
                // An attach that was cut short before the link had its label.
                links.remove_link(&link.name)?;
            }
        }
        let ipam = Ipam::open(directory, &live)?;
        tracing::info!(pods = ipam.leases().len(), "pod network opened");
        Ok(Self { ipam: Arc::new(Mutex::new(ipam)), range })
    }

    async fn known_range(&self) -> anyhow::Result<Cidr> {
        let mut range = self.range.clone();
        let known = tokio::time::timeout(RANGE_WAIT_MAX, range.wait_for(Option::is_some));
        let known = known.await.context("the node has no pod range yet (spec.podCIDR)")?;
        known.ok().and_then(|range| *range).context("the network is stopping")
    }

    fn attach_now(&self, pod: &PodRef, path: &Path, range: Cidr) -> anyhow::Result<Ipv4Addr> {
        let netns = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let inode = netns.metadata()?.ino();
        let gateway = range.nth(1).context("the node's pod range is too small")?;
        let mut links = Links::open()?;
        let mtu = host::mtu(&mut links)?;
        if let Err(error) = docker_user::ensure_before_pod() {
            tracing::warn!("Docker's firewall may drop pods' packets: {error:#}");
        }
        let lease = Lease::new(pod, inode);
        let address = self.lease(&mut links, range, &lease)?;
        let done = connect(&mut links, &lease, address, gateway, mtu, netns);
        if let Err(error) = done {
            // The address stays with the pod, which will ask again; a half-made link does not.
            links.remove_link(&pod_link(address))?;
            return Err(error.context(format!("connect pod {}/{}", pod.namespace, pod.name)));
        }
        tracing::debug!(pod = %pod.name, namespace = %pod.namespace, %address, "pod attached");
        Ok(address)
    }

    /// The pod's address: the one that it has in this namespace, else a new one.
    fn lease(&self, links: &mut Links, range: Cidr, lease: &Lease) -> anyhow::Result<Ipv4Addr> {
        let held = {
            let ipam = self.ipam.lock();
            ipam.of(&lease.uid).map(|(address, held)| (address, held.netns))
        };
        match held {
            Some((address, netns)) if netns == lease.netns => return Ok(address),
            Some((address, _)) => {
                // Another sandbox: its link goes with its namespace, and the address may rest.
                links.remove_link(&pod_link(address))?;
                self.ipam.lock().release(address)?;
            }
            None => {}
        }
        Ok(self.ipam.lock().allocate(range, lease.clone())?)
    }

    fn detach_now(&self, uid: &str) -> anyhow::Result<()> {
        let held = self.ipam.lock().of(uid).map(|(address, _)| address);
        let Some(address) = held else { return Ok(()) };
        Links::open()?.remove_link(&pod_link(address))?;
        self.ipam.lock().release(address)?;
        tracing::debug!(uid, %address, "pod detached");
        Ok(())
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, pod: &PodRef, netns: &Path) -> anyhow::Result<PodAddresses> {
        let range = self.known_range().await?;
        let (me, pod, netns): (Self, PodRef, PathBuf) =
            (self.clone(), pod.clone(), netns.to_owned());
        let address =
            tokio::task::spawn_blocking(move || me.attach_now(&pod, &netns, range)).await??;
        Ok(PodAddresses { ips: vec![IpAddr::V4(address)] })
    }

    async fn detach(&self, uid: &str) -> anyhow::Result<()> {
        let (me, uid) = (self.clone(), uid.to_owned());
        tokio::task::spawn_blocking(move || me.detach_now(&uid)).await?
    }

    async fn list(&self) -> Vec<String> {
        self.ipam.lock().leases().values().map(|lease| lease.uid.clone()).collect()
    }
}

/// Makes and configures both ends.
fn connect(
    links: &mut Links,
    lease: &Lease,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    mtu: u32,
    netns: File,
) -> anyhow::Result<()> {
    let name = pod_link(address);
    if links.link(&name)?.is_none() {
        links.add_pod_pair(address, mtu, netns.as_fd())?;
    }
    let link = links.link(&name)?.with_context(|| format!("link {name} has gone"))?;
    links.configure_pod_link(&link, &lease.label())?;
    links.add_address(link.index, gateway)?;
    links.add_neighbour(link.index, address, pod_mac(address))?;
    links.add_route(Cidr::new(address, 32), link.index, None, Some(gateway))?;
    let mut notices = Notices::open()?;
    // A thread of its own, which ends here: no thread of a pool may stay in a pod's namespace.
    let inside = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        configure_inside(address, gateway)
    })?;
    inside.join().map_err(|_| anyhow::anyhow!("the thread in the pod's namespace panicked"))??;
    // The end that was brought up first drops packets until the kernel has noticed the other.
    let running = links.link(&name)?.is_some_and(|link| link.running);
    if !running && !notices.wait_running(link.index, RUNNING_WAIT_MAX)? {
        tracing::warn!(link = %name, "the link is slow to come up");
    }
    Ok(())
}

/// The pod's end: loopback up, address, gateway, default route.
fn configure_inside(address: Ipv4Addr, gateway: Ipv4Addr) -> anyhow::Result<()> {
    let mut links = Links::open()?;
    let all = links.links()?;
    for link in &all {
        if link.name == "lo" || link.name == POD_INTERFACE {
            links.up(link.index, &link.name)?;
        }
    }
    let link = all.iter().find(|link| link.name == POD_INTERFACE);
    let link = link.with_context(|| format!("the pod has no {POD_INTERFACE}"))?;
    links.add_address(link.index, address)?;
    links.add_neighbour(link.index, gateway, host_mac(address))?;
    links.add_route(Cidr::new(gateway, 32), link.index, None, None)?;
    links.add_route(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), link.index, Some(gateway), None)?;
    Ok(())
}
