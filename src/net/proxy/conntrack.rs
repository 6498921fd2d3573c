//! Forgets tracked UDP flows that lead where no endpoint is any more.
//!
//! Why only UDP: a TCP client notices and connects anew, and a new connection is translated anew. A
//! UDP client that keeps its port would be translated by the old entry for as long as it sends.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::layout::Set;
use super::plan::{Front, Protocol, Value, front_bytes};
use super::table::{Delta, Table};
use crate::net::netlink::{Attr, Message, Result, Socket, attrs};
use crate::net::nft::FAMILY_IP;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PORTS: u16 = 2;

/// A tracked UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the client sends to.
    pub to: SocketAddrV4,
    /// Who answers.
    pub from: SocketAddrV4,
    /// The kernel's key of it.
    tuple: Vec<u8>,
}

/// The UDP fronts that a change is about, among them those that are gone.
pub fn fronts(delta: &Delta) -> BTreeSet<Front> {
    let front = |(set, key): &(Set, Vec<u8>)| {
        let whole = match set {
            Set::Services | Set::Endpoints => key.clone(),
            Set::NodePorts => [&[0; 4], &key[..]].concat(),
            _ => return None,
        };
        let [a, b, c, d, protocol, _, _, _, high, low, ..] = whole[..] else { return None };
        (protocol == Protocol::Udp as u8).then_some(Front {
            address: Ipv4Addr::new(a, b, c, d),
            protocol: Protocol::Udp,
            port: u16::from_be_bytes([high, low]),
        })
    };
    delta.keys().filter_map(front).collect()
}

/// Whether a flow to one of `fronts` is answered by no endpoint of it.
pub fn stale(
    flow: &Flow,
    fronts: &BTreeSet<Front>,
    table: &Table,
    local: &BTreeSet<Ipv4Addr>,
) -> bool {
    let port = flow.to.port();
    let at = |address| Front { address, protocol: Protocol::Udp, port };
    let own = at(*flow.to.ip());
    let front = if fronts.contains(&own) {
        own
    } else if local.contains(flow.to.ip()) && fronts.contains(&at(Ipv4Addr::UNSPECIFIED)) {
        at(Ipv4Addr::UNSPECIFIED)
    } else {
        return false;
    };
    let key = front_bytes(&front);
    let endpoint = (0_u32..)
        .map(|slot| table.get(&(Set::Endpoints, [&key[..], &slot.to_ne_bytes()].concat())))
        .map_while(|value| value)
        .find(|value| **value == Value::Endpoint(flow.from));
    endpoint.is_none()
}

/// Looks through all flows and deletes the stale ones; how many there were.
pub fn flush(fronts: &BTreeSet<Front>, table: &Table, local: &BTreeSet<Ipv4Addr>) -> Result<usize> {
    let mut socket = Socket::open()?;
    let ask = Message::new(GET, 0, &[FAMILY_IP, 0, 0, 0]);
    let flows = socket.dump("list tracked connections", &ask, |kept, received| {
        kept.extend(flow(received.payload.get(4..).unwrap_or(&[])));
    })?;
    let mut flushed = 0;
    for flow in flows.iter().filter(|flow| stale(flow, fronts, table, local)) {
        let mut message = Message::new(DELETE, 0, &[FAMILY_IP, 0, 0, 0]);
        message.nest(TUPLE_ORIGINAL, |tuple| {
            tuple.raw(&flow.tuple);
        });
        match socket.request("forget a tracked flow", message) {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => flushed += 1,
        }
    }
    Ok(flushed)
}

fn flow(payload: &[u8]) -> Option<Flow> {
    let tuple = |kind| attrs(payload).find(|attr| attr.kind == kind);
    let (original, reply) = (tuple(TUPLE_ORIGINAL)?, tuple(TUPLE_REPLY)?);
    let to = end(&original, 2, 3)?;
    let from = end(&reply, 1, 2)?;
    Some(Flow { to, from, tuple: original.value.to_vec() })
}

/// Address and port of one end of a UDP tuple, by the numbers of their attributes.
fn end(tuple: &Attr<'_>, address: u16, port: u16) -> Option<SocketAddrV4> {
    let part = |kind| tuple.attrs().find(|attr| attr.kind == kind);
    let ports = part(TUPLE_PORTS)?;
    let field = |kind| ports.attrs().find(|attr| attr.kind == kind);
    if field(1)?.value != [Protocol::Udp as u8] {
        return None;
    }
    let address = part(TUPLE_ADDRESSES)?.attrs().find(|attr| attr.kind == address)?;
    let port = u16::from_be_bytes(*field(port)?.value.first_chunk()?);
    Some(SocketAddrV4::new(address.be32().into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::proxy::layout::Pick;
    use crate::net::proxy::plan::Elements;
    use crate::reconcile::ObjectKey;

    fn flow(to: &str, from: &str) -> Flow {
        Flow { to: to.parse().unwrap(), from: from.parse().unwrap(), tuple: Vec::new() }
    }

    #[test]
    fn only_flows_to_a_front_without_their_endpoint_are_stale() {
        let front = |address: [u8; 4], port| Front {
            address: address.into(),
            protocol: Protocol::Udp,
            port,
        };
        let (service, node) = (front([10, 43, 1, 1], 53), front([0; 4], 30_053));
        let endpoint = Value::Endpoint("10.42.0.2:5353".parse().unwrap());
        let mut elements = Elements::new();
        for front in [service, node] {
            let key = [&front_bytes(&front)[..], &0_u32.to_ne_bytes()].concat();
            elements.insert((Set::Endpoints, key), endpoint.clone());
        }
        let pick = Value::Pick(Pick { slots: 1, node_port: false, sticky: None });
        elements.insert((Set::Services, front_bytes(&service)), pick);
        let (mut table, mut delta) = (Table::default(), Delta::new());
        table.set(ObjectKey::new("ns", "dns"), elements, &mut delta);
        let fronts = fronts(&delta);
        assert_eq!(fronts, BTreeSet::from([service, node]));
        let local = BTreeSet::from([Ipv4Addr::new(192, 168, 0, 1)]);
        let is = |to, from| stale(&flow(to, from), &fronts, &table, &local);
        assert!(!is("10.43.1.1:53", "10.42.0.2:5353"));
        assert!(is("10.43.1.1:53", "10.42.0.9:5353"), "the endpoint has gone");
        assert!(is("10.43.1.1:53", "10.43.1.1:53"), "it was not translated");
        assert!(!is("192.168.0.1:30053", "10.42.0.2:5353"));
        assert!(is("192.168.0.1:30053", "192.168.0.1:30053"));
        assert!(!is("8.8.8.8:30053", "8.8.8.8:30053"), "somebody else's port");
    }
}
