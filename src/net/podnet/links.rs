//! Links, addresses, routes and neighbours by rtnetlink.
//!
//! Why /32 addresses behind the node's gateway address and no bridge: replies between two pods of
//! one node pass the same hooks as all other traffic, whatever bridge-nf-call-iptables says, and
//! there is no flooding. Both ends know each other's hardware address from the start (permanent
//! neighbours made from the pod's address), so the first packet needs no ARP.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::net::cidr::Cidr;
use crate::net::netlink::{Attr, Family, Message, Result, Socket, attrs, ne32};

/// What our pod links' names begin with; the pod's address in hexadecimal follows.
pub const POD_LINK_PREFIX: &str = "cld";
/// The node's own link: gateway and DNS address, and the way of the Service range.
pub const NODE_LINK: &str = "clusterd0";
/// Its other end, which exists only because a veth has two.
pub const NODE_LINK_PEER: &str = "clusterd1";
/// The interface in a pod.
pub const POD_INTERFACE: &str = "eth0";
/// The `rtm_protocol` that marks our routes (`ip route show proto 201`).
pub const ROUTE_PROTOCOL: u8 = 201;
/// The metric of the guard routes: any other route to the range is better.
const GUARD_METRIC: u32 = 0xff00_0000;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFF_UP: u32 = 1;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
const INET: u8 = libc::AF_INET as u8;

/// Settings of a host-side link, by the kernel's `IPV4_DEVCONF_` number. Redirects off: a pod that
/// reaches itself through a Service must not be told a shorter way. `route_localnet` lets a node
/// port answer on 127.0.0.1; a rule in our table drops what pods send to loopback addresses.
const POD_LINK_SETTINGS: [(u16, u32); 6] = [
    (1, 1),  // forwarding
    (4, 0),  // accept_redirects
    (6, 0),  // send_redirects
    (3, 0),  // proxy_arp: the gateway address answers, nothing else does
    (9, 0),  // accept_source_route
    (26, 1), // route_localnet
];

/// A link as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The text that we labelled it with.
    pub alias: String,
    /// Bytes that a packet may have.
    pub mtu: u32,
    /// It carries packets.
    pub running: bool,
}

/// A route as the kernel lists it (IPv4, main table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Cidr,
    /// Its link, or 0.
    pub link: u32,
    /// Its `rtm_protocol`.
    pub protocol: u8,
    /// Its metric.
    pub metric: u32,
    /// Its `RTN_` type.
    pub kind: u8,
}

/// Requests about links in the namespace of the thread that opened it.
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Family::Route)? })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let ask = Message::new(RTM_GETLINK, 0, &[0; 16]);
        self.socket.dump("list links", &ask, |kept, received| {
            kept.push(link_of(received.payload));
        })
    }

    /// The link of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// All IPv4 addresses with their link's index.
    pub fn addresses(&mut self) -> Result<Vec<(Ipv4Addr, u32)>> {
        const IFA_ADDRESS: u16 = 1;
        const IFA_LOCAL: u16 = 2;
        let ask = Message::new(RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]);
        self.socket.dump("list addresses", &ask, |kept, received| {
            let found: Vec<Attr<'_>> = attrs(received.payload.get(8..).unwrap_or(&[])).collect();
            let pick = |kind| found.iter().find(|attr| attr.kind == kind);
            if let Some(attr) = pick(IFA_LOCAL).or_else(|| pick(IFA_ADDRESS)) {
                kept.push((attr.be32().into(), ne32(received.payload, 4)));
            }
        })
    }

    /// All IPv4 routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut ask = [0_u8; 12];
        ask[0] = INET;
        let ask = Message::new(RTM_GETROUTE, 0, &ask);
        self.socket.dump("list routes", &ask, |kept, received| {
            let fixed = received.payload;
            if fixed.len() < 12 || fixed[4] != RT_TABLE_MAIN {
                return;
            }
            let (mut to, mut link, mut metric) = (Ipv4Addr::UNSPECIFIED, 0, 0);
            for attr in attrs(&fixed[12..]) {
                match attr.kind {
                    1 => to = attr.be32().into(),
                    4 => link = attr.ne32(),
                    6 => metric = attr.ne32(),
                    _ => {}
                }
            }
            let (protocol, kind) = (fixed[5], fixed[7]);
            kept.push(Route { to: Cidr::new(to, fixed[1]), link, protocol, metric, kind });
        })
    }

    /// Makes the pair of links between the node and the namespace `netns`.
    pub fn add_pod_pair(&mut self, pod: Ipv4Addr, mtu: u32, netns: BorrowedFd<'_>) -> Result<()> {
        let name = pod_link(pod);
        let mut message =
            Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0));
        message.text(IFLA_IFNAME, &name).ne32(IFLA_MTU, mtu).attr(IFLA_ADDRESS, &host_mac(pod));
        veth(&mut message, |peer| {
            peer.text(IFLA_IFNAME, POD_INTERFACE)
                .ne32(IFLA_MTU, mtu)
                .attr(IFLA_ADDRESS, &pod_mac(pod))
                .ne32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
        });
        self.socket.request(&format!("create link {name}"), message)
    }

    /// Makes the node's own link where it is missing and brings it up; returns its index.
    pub fn ensure_node_link(&mut self) -> Result<u32> {
        if self.link(NODE_LINK)?.is_none() {
            let mut message =
                Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0));
            message.text(IFLA_IFNAME, NODE_LINK);
            veth(&mut message, |peer| {
                peer.text(IFLA_IFNAME, NODE_LINK_PEER);
            });
            self.socket.request(&format!("create link {NODE_LINK}"), message)?;
        }
        let mut index = 0;
        for link in self.links()? {
            if link.name == NODE_LINK || link.name == NODE_LINK_PEER {
                self.up(link.index, &link.name)?;
            }
            if link.name == NODE_LINK {
                index = link.index;
            }
        }
        Ok(index)
    }

    /// Brings a link up.
    pub fn up(&mut self, index: u32, name: &str) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, 0, &link_header(index, IFF_UP, IFF_UP));
        self.socket.request(&format!("bring up {name}"), message)
    }

    /// Sets what a pod's host-side link needs, and its label, and brings it up.
    pub fn configure_pod_link(&mut self, link: &Link, alias: &str) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0, &link_header(link.index, IFF_UP, IFF_UP));
        message.text(IFLA_IFALIAS, alias).nest(IFLA_AF_SPEC, |families| {
            families.nest(u16::from(INET), |inet| {
                inet.nest(IFLA_INET_CONF, |settings| {
                    for (setting, value) in POD_LINK_SETTINGS {
                        settings.ne32(setting, value);
                    }
                });
            });
        });
        self.socket.request(&format!("configure {}", link.name), message)
    }

    /// Makes the node's link and removes it again, unless it is there: can this kernel do it?
    pub fn try_pair(&mut self) -> Result<()> {
        if self.link(NODE_LINK)?.is_some() {
            return Ok(());
        }
        self.ensure_node_link()?;
        self.remove_link(NODE_LINK)
    }

    /// Removes a link; no error when there is none.
    pub fn remove_link(&mut self, name: &str) -> Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0, &link_header(0, 0, 0));
        message.text(IFLA_IFNAME, name);
        let done = self.socket.request(&format!("remove link {name}"), message);
        forgive(done, &[libc::ENODEV])
    }

    /// Gives a link a /32 address.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr) -> Result<()> {
        let mut fixed = [INET, 32, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&link.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        message.attr(2, &address.octets()).attr(1, &address.octets());
        self.socket.request(&format!("add address {address}"), message)
    }

    /// Tells a link the hardware address of its only neighbour for good.
    pub fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let mut fixed = [0_u8; 12];
        fixed[0] = INET;
        fixed[4..8].copy_from_slice(&link.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        message.attr(1, &address.octets()).attr(2, &mac);
        self.socket.request(&format!("add neighbour {address}"), message)
    }

    /// Routes `to` over a link: straight, or by way of `gateway`; `source` is the address that the
    /// host's own connections take.
    pub fn add_route(
        &mut self,
        to: Cidr,
        link: u32,
        gateway: Option<Ipv4Addr>,
        source: Option<Ipv4Addr>,
    ) -> Result<()> {
        let scope = if gateway.is_some() { 0 } else { RT_SCOPE_LINK };
        let flags = if gateway.is_some() { RTNH_F_ONLINK } else { 0 };
        let fixed = route_header(to, scope, RTN_UNICAST, flags);
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        message.attr(1, &to.base().octets()).ne32(4, link);
        if let Some(gateway) = gateway {
            message.attr(5, &gateway.octets());
        }
        if let Some(source) = source {
            message.attr(7, &source.octets());
        }
        self.socket.request(&format!("add route to {to}"), message)
    }

    /// Makes a range unreachable except where a better route exists.
    pub fn add_guard(&mut self, range: Cidr) -> Result<()> {
        let fixed = route_header(range, 0, RTN_UNREACHABLE, 0);
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        message.attr(1, &range.base().octets()).ne32(6, GUARD_METRIC);
        self.socket.request(&format!("make {range} unreachable"), message)
    }

    /// Removes one of our routes.
    pub fn remove_route(&mut self, route: &Route) -> Result<()> {
        let fixed = route_header(route.to, 0xff, route.kind, 0);
        let mut message = Message::new(RTM_DELROUTE, 0, &fixed);
        message.attr(1, &route.to.base().octets()).ne32(6, route.metric);
        if route.link != 0 {
            message.ne32(4, route.link);
        }
        let done = self.socket.request(&format!("remove route to {}", route.to), message);
        forgive(done, &[libc::ESRCH])
    }

    /// The link and MTU of the default route.
    pub fn uplink(&mut self) -> Result<Option<Link>> {
        let routes = self.routes()?;
        let best = routes
            .iter()
            .filter(|route| route.to.length() == 0 && route.kind == RTN_UNICAST && route.link != 0)
            .min_by_key(|route| route.metric);
        let Some(best) = best else { return Ok(None) };
        Ok(self.links()?.into_iter().find(|link| link.index == best.link))
    }
}

/// Hears of changes to links, in the namespace of the thread that opened it.
pub struct Notices {
    socket: Socket,
}

impl Notices {
    /// Listens from now on.
    pub fn open() -> Result<Self> {
        const RTNLGRP_LINK: u32 = 1;
        Ok(Self { socket: Socket::listen(Family::Route, RTNLGRP_LINK)? })
    }

    /// Waits until a link carries packets; `false` when it has not for `patience`.
    pub fn wait_running(&mut self, index: u32, patience: Duration) -> Result<bool> {
        self.socket.notices(Some(patience), |notice| {
            let link = link_of(notice.payload);
            notice.kind == RTM_NEWLINK && link.index == index && link.running
        })
    }
}

fn link_of(payload: &[u8]) -> Link {
    const OPERATIONAL: u8 = 6;
    let mut link = Link { index: ne32(payload, 4), ..Link::default() };
    for attr in attrs(payload.get(16..).unwrap_or(&[])) {
        match attr.kind {
            IFLA_IFNAME => link.name = attr.text().to_owned(),
            IFLA_IFALIAS => link.alias = attr.text().to_owned(),
            IFLA_MTU => link.mtu = attr.ne32(),
            IFLA_OPERSTATE => link.running = attr.value.first() == Some(&OPERATIONAL),
            _ => {}
        }
    }
    link
}

/// The name of the host-side link of the pod at `address`.
pub fn pod_link(address: Ipv4Addr) -> String {
    format!("{POD_LINK_PREFIX}{:08x}", u32::from(address))
}

/// The pod's address, from the name of its host-side link.
pub fn address_of_link(name: &str) -> Option<Ipv4Addr> {
    let hex = name.strip_prefix(POD_LINK_PREFIX).filter(|hex| hex.len() == 8)?;
    u32::from_str_radix(hex, 16).ok().map(Ipv4Addr::from)
}

/// The hardware address of a pod's interface (locally administered, from its IP address).
pub fn pod_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The hardware address of the host's side.
pub fn host_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0e, 0x58, a, b, c, d]
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn route_header(to: Cidr, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[..8].copy_from_slice(&[
        INET,
        to.length(),
        0,
        0,
        RT_TABLE_MAIN,
        ROUTE_PROTOCOL,
        scope,
        kind,
    ]);
    fixed[8..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn veth(message: &mut Message, peer: impl FnOnce(&mut Message)) {
    message.nest(IFLA_LINKINFO, |info| {
        info.attr(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |inner| {
                inner.raw(&link_header(0, 0, 0));
                peer(inner);
            });
        });
    });
}

/// Success also when the kernel refused for one of these reasons: it is so already.
fn forgive(done: Result<()>, errors: &[i32]) -> Result<()> {
    match done {
        Err(error) if error.errno().is_some_and(|number| errors.contains(&number)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_tells_the_address_back() {
        let address = Ipv4Addr::new(10, 42, 0, 7);
        let name = pod_link(address);
        assert_eq!(name, "cld0a2a0007");
        assert!(name.len() <= 15, "the kernel's limit");
        assert_eq!(address_of_link(&name), Some(address));
        assert_eq!(address_of_link("clusterd0"), None);
        assert_ne!(pod_mac(address), host_mac(address));
    }
}
