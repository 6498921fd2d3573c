//! Links, addresses, routes and neighbours, by the crate `rtnetlink`.
//!
//! Why /32 addresses behind the node's gateway address and no bridge: replies between two pods of
//! one node pass the same hooks as all other traffic, whatever bridge-nf-call-iptables says, and
//! there is no flooding. Both ends know each other's hardware address from the start (permanent
//! neighbours made from the pod's address), so the first packet needs no ARP.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder};

use crate::net::cidr::Cidr;
use crate::net::netlink::Result;

use super::connection::{Connection, Listener};

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

/// The attribute that holds a link's IPv4 settings.
const IFLA_INET_CONF: u16 = 1;

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
    /// What becomes of its packets.
    pub kind: RouteType,
}

/// Requests about links in the namespace of the thread that opened it. Its calls wait for the
/// kernel: not for use within an async task.
pub struct Links {
    kernel: Connection,
}

impl Links {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { kernel: Connection::open()? })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = self.kernel.dump("list links", &ask)?;
        Ok(found.into_iter().filter_map(link_of).collect())
    }

    /// The link of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// All IPv4 addresses with their link's index.
    pub fn addresses(&mut self) -> Result<Vec<(Ipv4Addr, u32)>> {
        let mut ask = AddressMessage::default();
        ask.header.family = AddressFamily::Inet;
        let ask = RouteNetlinkMessage::GetAddress(ask);
        let found = self.kernel.dump("list addresses", &ask)?;
        Ok(found.into_iter().filter_map(address_of).collect())
    }

    /// All IPv4 routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut ask = RouteMessage::default();
        ask.header.address_family = AddressFamily::Inet;
        let ask = RouteNetlinkMessage::GetRoute(ask);
        let found = self.kernel.dump("list routes", &ask)?;
        Ok(found.into_iter().filter_map(route_of).collect())
    }

    /// Makes the pair of links between the node and the namespace `netns`.
    pub fn add_pod_pair(&mut self, pod: Ipv4Addr, mtu: u32, netns: BorrowedFd<'_>) -> Result<()> {
        let name = pod_link(pod);
        let peer = LinkUnspec::new_with_name(POD_INTERFACE)
            .mtu(mtu)
            .address(pod_mac(pod).to_vec())
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(&name)
            .mtu(mtu)
            .address(host_mac(pod).to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.add_link(&name, pair)
    }

    fn add_link(&mut self, name: &str, link: LinkMessage) -> Result<()> {
        let request = self.kernel.handle().link().add(link).execute();
        self.kernel.run(&format!("create link {name}"), request)
    }

    /// Makes the node's own link where it is missing and brings it up; returns its index.
    pub fn ensure_node_link(&mut self) -> Result<u32> {
        if self.link(NODE_LINK)?.is_none() {
            self.add_link(NODE_LINK, LinkVeth::new(NODE_LINK, NODE_LINK_PEER).build())?;
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
        let change = LinkUnspec::new_with_index(index).up().build();
        let request = self.kernel.handle().link().change(change).execute();
        self.kernel.run(&format!("bring up {name}"), request)
    }

    /// Sets what a pod's host-side link needs, and its label, and brings it up.
    pub fn configure_pod_link(&mut self, link: &Link, alias: &str) -> Result<()> {
        let change = LinkUnspec::new_with_index(link.index)
            .up()
            .append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()))
            .append_extra_attribute(pod_link_settings())
            .build();
        let request = self.kernel.handle().link().change(change).execute();
        self.kernel.run(&format!("configure {}", link.name), request)
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
        let link = LinkUnspec::new_with_name(name).build();
        let request = self.kernel.handle().link().del_with_message(link).execute();
        let done = self.kernel.run(&format!("remove link {name}"), request);
        forgive(done, &[libc::ENODEV])
    }

    /// Gives a link a /32 address.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr) -> Result<()> {
        let add = self.kernel.handle().address().add(link, IpAddr::V4(address), 32);
        self.kernel.run(&format!("add address {address}"), add.replace().execute())
    }

    /// Tells a link the hardware address of its only neighbour for good.
    pub fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let add = self.kernel.handle().neighbours().add(link, IpAddr::V4(address));
        let request = add.link_layer_address(&mac).replace().execute();
        self.kernel.run(&format!("add neighbour {address}"), request)
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
        let mut route = our_route(to).output_interface(link);
        route = match gateway {
            Some(gateway) => route.gateway(gateway).onlink(),
            None => route.scope(RouteScope::Link),
        };
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        let request = self.kernel.handle().route().add(route.build()).replace().execute();
        self.kernel.run(&format!("add route to {to}"), request)
    }

    /// Makes a range unreachable except where a better route exists.
    pub fn add_guard(&mut self, range: Cidr) -> Result<()> {
        let guard = our_route(range).kind(RouteType::Unreachable).priority(GUARD_METRIC).build();
        let request = self.kernel.handle().route().add(guard).replace().execute();
        self.kernel.run(&format!("make {range} unreachable"), request)
    }

    /// Removes one of our routes.
    pub fn remove_route(&mut self, route: &Route) -> Result<()> {
        let mut gone =
            our_route(route.to).scope(RouteScope::NoWhere).kind(route.kind).priority(route.metric);
        if route.link != 0 {
            gone = gone.output_interface(route.link);
        }
        let request = self.kernel.handle().route().del(gone.build()).execute();
        let done = self.kernel.run(&format!("remove route to {}", route.to), request);
        forgive(done, &[libc::ESRCH])
    }

    /// The link and MTU of the default route.
    pub fn uplink(&mut self) -> Result<Option<Link>> {
        let routes = self.routes()?;
        let best = routes
            .iter()
            .filter(|route| {
                route.to.length() == 0 && route.kind == RouteType::Unicast && route.link != 0
            })
            .min_by_key(|route| route.metric);
        let Some(best) = best else { return Ok(None) };
        Ok(self.links()?.into_iter().find(|link| link.index == best.link))
    }
}

/// Hears of changes to links, in the namespace of the thread that opened it.
pub struct Notices {
    kernel: Listener,
}

impl Notices {
    /// Listens from now on.
    pub fn open() -> Result<Self> {
        Ok(Self { kernel: Listener::open(MulticastGroup::Link)? })
    }

    /// Waits until a link carries packets; `false` when it has not for `patience`.
    pub fn wait_running(&mut self, index: u32, patience: Duration) -> Result<bool> {
        self.kernel.wait(patience, |notice| {
            link_of(notice).is_some_and(|link| link.index == index && link.running)
        })
    }
}

fn link_of(entry: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(entry) = entry else { return None };
    let mut link = Link { index: entry.header.index, ..Link::default() };
    for attribute in entry.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.running = state == State::Up,
            _ => {}
        }
    }
    Some(link)
}

fn address_of(entry: RouteNetlinkMessage) -> Option<(Ipv4Addr, u32)> {
    let RouteNetlinkMessage::NewAddress(entry) = entry else { return None };
    let (mut own, mut other) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => own = Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => other = Some(*address),
            _ => {}
        }
    }
    Some((own.or(other)?, entry.header.index))
}

fn route_of(entry: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(entry) = entry else { return None };
    let header = &entry.header;
    if header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut to, mut link, mut metric) = (Ipv4Addr::UNSPECIFIED, 0, 0);
    for attribute in &entry.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Oif(index) => link = *index,
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let to = Cidr::new(to, header.destination_prefix_length);
    Some(Route { to, link, protocol: header.protocol.into(), metric, kind: header.kind })
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

fn our_route(to: Cidr) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.base(), to.length())
        .protocol(RouteProtocol::from(ROUTE_PROTOCOL))
}

/// The settings as attributes. Written out here because the crate's own list of them leaves out
/// what is to be 0.
fn pod_link_settings() -> LinkAttribute {
    let settings = POD_LINK_SETTINGS
        .map(|(setting, value)| DefaultNla::new(setting, value.to_ne_bytes().to_vec()));
    let mut bytes = vec![0; settings.as_slice().buffer_len()];
    settings.as_slice().emit(&mut bytes);
    let inet = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, bytes));
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![inet])])
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
