//! What a host must have before its first pod: forwarding, our own link, the guard routes.
//!
//! Why first: from the moment that this returns no packet for an unknown pod or Service leaves the
//! host by its default route, whatever else has not started yet.

use std::fs;
use std::net::Ipv4Addr;

use crate::net::cidr::Cidr;
use crate::net::proxy::layout::Ranges;

use super::links::{Links, NODE_LINK, NODE_LINK_PEER, POD_LINK_PREFIX, ROUTE_PROTOCOL};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Bytes of a packet where the host has no default route to tell.
const MTU_DEFAULT: u32 = 1500;

/// Makes link, addresses and guard routes; may be repeated.
pub fn prepare(links: &mut Links, ranges: &Ranges, dns: Ipv4Addr) -> anyhow::Result<()> {
    refuse_overlap(links, ranges)?;
    links.add_guard(ranges.cluster)?;
    if fs::read_to_string(IP_FORWARD)?.trim() != "1" {
        fs::write(IP_FORWARD, "1")?;
        tracing::info!("switched on IPv4 forwarding ({IP_FORWARD})");
    }
    let index = links.ensure_node_link()?;
    links.add_address(index, dns)?;
    let routed = links.routes()?.iter().any(|route| {
        route.protocol == ROUTE_PROTOCOL && route.to == ranges.service && route.link == index
    });
    if !routed {
        links.add_route(ranges.service, index, None, None)?;
    }
    tracing::info!(link = NODE_LINK, pods = %ranges.cluster, services = %ranges.service, %dns,
        "the host's network is prepared");
    Ok(())
}

/// Puts the gateway of the node's pods on our link and makes it the source of the host's own
/// connections to Services.
pub fn set_gateway(links: &mut Links, service: Cidr, gateway: Ipv4Addr) -> anyhow::Result<()> {
    let index = links.ensure_node_link()?;
    links.add_address(index, gateway)?;
    links.add_route(service, index, None, Some(gateway))?;
    Ok(())
}

/// Bytes that a pod's packets may have: those of the host's way out.
pub fn mtu(links: &mut Links) -> anyhow::Result<u32> {
    Ok(links.uplink()?.map_or(MTU_DEFAULT, |link| link.mtu))
}

/// A route of somebody else inside our ranges would take pods' or Services' packets away.
pub fn refuse_overlap(links: &mut Links, ranges: &Ranges) -> anyhow::Result<()> {
    let names = links.links()?;
    for route in links.routes()? {
        if route.protocol == ROUTE_PROTOCOL || route.to.length() == 0 {
            continue;
        }
        for (what, flag, range) in [
            ("pod", "--cluster-cidr", ranges.cluster),
            ("Service", "--service-cidr", ranges.service),
        ] {
            let name = names.iter().find(|link| link.index == route.link);
            let name = name.map_or("no link", |link| link.name.as_str());
            let ours = name.starts_with(POD_LINK_PREFIX) || name.starts_with(NODE_LINK);
            anyhow::ensure!(
                ours || !range.overlaps(route.to),
                "the {what} range {range} overlaps the host's route to {} by {name}: \
                 choose another range with {flag}",
                route.to
            );
        }
    }
    Ok(())
}

/// What of ours this host has, one line each.
pub fn inventory(links: &mut Links) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for link in links.links()? {
        if is_ours(&link.name) {
            found.push(format!("link {} {}", link.name, link.alias).trim_end().to_owned());
        }
    }
    for route in links.routes()? {
        if route.protocol == ROUTE_PROTOCOL {
            found.push(format!("route {}", route.to));
        }
    }
    Ok(found)
}

/// Removes all links and routes of ours.
pub fn remove(links: &mut Links) -> anyhow::Result<()> {
    for link in links.links()? {
        if is_ours(&link.name) && link.name != NODE_LINK_PEER {
            links.remove_link(&link.name)?;
        }
    }
    for route in links.routes()? {
        if route.protocol == ROUTE_PROTOCOL {
            links.remove_route(&route)?;
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    super::links::address_of_link(name).is_some() || name == NODE_LINK || name == NODE_LINK_PEER
}
