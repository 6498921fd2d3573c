//! The fixed part of the table `ip clusterd`: its sets, its base chains, and how a chain picks one
//! of K endpoints.
//!
//! Why this shape: a Service is one element of a verdict map and each of its endpoints one element
//! of another, so that ten thousand Services cost one lookup and a change is two elements. Chains
//! exist once for each number of endpoints, not for each Service.
//!
//! ```text
//! services   address . protocol . port        -> goto pick-K
//! nodeports            protocol . port        -> goto node-K       (any address of this host)
//! pick-K     numgen random mod K -> slot
//! endpoints  address . protocol . port . slot -> address . port    -> dnat
//! ```
//!
//! ClientIP affinity is a map that packets fill (`affinity`), with the timeout of the Service in
//! the chain's name. What it says only counts while `sticky` still has that endpoint, so an
//! endpoint that left is forgotten by the next packet without any help from here.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::net::cidr::Cidr;
use crate::net::nft::{DataType, Expr, Hook, SetSpec, SetValue, Transaction, Verdict, register};
use crate::net::podnet::links::{NODE_LINK, POD_LINK_PREFIX};

/// Counts up when sets, chains or rules below change, so that a new program replaces an old table.
const LAYOUT_VERSION: u32 = 1;
/// Clients whose choice is remembered; more are served without affinity.
const AFFINITY_ENTRIES_MAX: u32 = 262_144;

use DataType::{Address, Number, Port, Protocol};

/// The sets, in the order of [`Set`].
pub const SETS: [SetSpec; 9] = [
    set("services", &[Address, Protocol, Port], SetValue::Verdict),
    set("nodeports", &[Protocol, Port], SetValue::Verdict),
    set("endpoints", &[Address, Protocol, Port, Number], SetValue::Data(&[Address, Port])),
    set("sticky", &[Address, Protocol, Port, Address, Port], SetValue::None),
    set("hairpin", &[Address, Address], SetValue::None),
    set("remote", &[Address, Protocol, Port], SetValue::None),
    set("refused", &[Address, Protocol, Port], SetValue::None),
    set("refused-nodeports", &[Protocol, Port], SetValue::None),
    SetSpec {
        name: "affinity",
        key: &[Address, Address, Protocol, Port],
        value: SetValue::Data(&[Address, Port]),
        dynamic: Some(AFFINITY_ENTRIES_MAX),
    },
];

const fn set(name: &'static str, key: &'static [DataType], value: SetValue) -> SetSpec {
    SetSpec { name, key, value, dynamic: None }
}

/// The sets that a plan fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    /// Where a Service's address leads.
    Services,
    /// Where a node port leads.
    NodePorts,
    /// The endpoints by slot.
    Endpoints,
    /// The endpoints of Services with affinity.
    Sticky,
    /// Endpoints that may reach themselves through a Service.
    Hairpin,
    /// Endpoints beyond this node and its pods.
    Remote,
    /// Addresses without endpoints.
    Refused,
    /// Node ports without endpoints.
    RefusedNodePorts,
}

impl Set {
    /// All of them, in the order of [`SETS`].
    pub const ALL: [Self; 8] = [
        Self::Services,
        Self::NodePorts,
        Self::Endpoints,
        Self::Sticky,
        Self::Hairpin,
        Self::Remote,
        Self::Refused,
        Self::RefusedNodePorts,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        SETS[self as usize].name
    }
}

/// The ranges that the fixed rules speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Pods of the whole cluster.
    pub cluster: Cidr,
    /// Services.
    pub service: Cidr,
}

impl Ranges {
    /// The name of an empty chain that says which layout the table has, and for which ranges.
    pub fn layout_chain(&self) -> String {
        let text = format!("{LAYOUT_VERSION} {} {}", self.cluster, self.service);
        format!("layout-{:08x}", crc32fast::hash(text.as_bytes()))
    }
}

/// A chain that picks one of `slots` endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pick {
    /// How many there are.
    pub slots: u32,
    /// Reached by a node port: the key's address is 0.
    pub node_port: bool,
    /// Seconds that a client keeps its endpoint.
    pub sticky: Option<u32>,
}

impl fmt::Display for Pick {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", if self.node_port { "node" } else { "pick" }, self.slots)?;
        self.sticky.map_or(Ok(()), |seconds| write!(out, "-for-{seconds}s"))
    }
}

impl FromStr for Pick {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once('-').ok_or(())?;
        let node_port = match kind {
            "pick" => false,
            "node" => true,
            _ => return Err(()),
        };
        let (slots, sticky) = match rest.split_once("-for-") {
            Some((slots, time)) => (slots, Some(time.strip_suffix('s').ok_or(())?)),
            None => (rest, None),
        };
        let sticky = sticky.map(str::parse).transpose().map_err(|_| ())?;
        Ok(Self { slots: slots.parse().map_err(|_| ())?, node_port, sticky })
    }
}

/// Replaces whatever table is there by one with the fixed part and no elements, in one transaction
/// with what follows in `transaction`.
pub fn replace(transaction: &mut Transaction, ranges: &Ranges) {
    transaction.add_table().delete_table().add_table();
    for (index, spec) in SETS.iter().enumerate() {
        transaction.add_set(spec, index as u32 + 1);
    }
    transaction.add_chain(&ranges.layout_chain(), None);
    translation(transaction);
    sources(transaction, ranges);
    guards(transaction, ranges);
}

const fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind, number, priority })
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const BEFORE_TRACKING: i32 = -300;
const TRANSLATE_DESTINATION: i32 = -100;
const FILTER: i32 = 0;
const TRANSLATE_SOURCE: i32 = 100;

/// `iifname` and `oifname` compare as many bytes as are given: the zero makes it the whole name.
const LOOPBACK: &str = "lo\0";

fn loopback_range() -> Cidr {
    Cidr::new(Ipv4Addr::LOCALHOST, 8)
}

/// Loads address, protocol and port into registers 1, 2 and 3.
fn load_key(rule: &mut Expr<'_>) {
    rule.destination_address(register(1)).protocol(register(2)).destination_port(register(3));
}

fn translation(transaction: &mut Transaction) {
    transaction.add_chain("services", None);
    transaction.add_rule("services", |rule| {
        load_key(rule);
        rule.dispatch("services", register(1));
    });
    transaction.add_rule("services", |rule| {
        rule.destination_is_local(true);
        rule.protocol(register(2)).destination_port(register(3));
        rule.dispatch("nodeports", register(2));
    });
    for (chain, number) in [("nat-prerouting", PREROUTING), ("nat-output", OUTPUT)] {
        transaction.add_chain(chain, hook("nat", number, TRANSLATE_DESTINATION));
        transaction.add_rule(chain, |rule| {
            rule.verdict(Verdict::Jump("services"));
        });
    }
}

/// Whose source address is replaced: a pod that reaches itself; a client on 127.0.0.1; what leaves
/// the pod range; a stranger whose packet goes on to another host.
fn sources(transaction: &mut Transaction, ranges: &Ranges) {
    let chain = "nat-postrouting";
    transaction.add_chain(chain, hook("nat", POSTROUTING, TRANSLATE_SOURCE));
    transaction.add_rule(chain, |rule| {
        rule.destination_was_translated();
        rule.source_address(register(0)).destination_address(register(1));
        rule.member("hairpin", register(0)).masquerade();
    });
    transaction.add_rule(chain, |rule| {
        rule.destination_was_translated().source_address(register(0));
        rule.in_range(register(0), loopback_range(), true).not_to_link(LOOPBACK).masquerade();
    });
    transaction.add_rule(chain, |rule| {
        rule.source_address(register(0)).in_range(register(0), ranges.cluster, true);
        rule.destination_address(register(0)).in_range(register(0), ranges.cluster, false);
        rule.not_to_link(LOOPBACK).not_to_link(POD_LINK_PREFIX).masquerade();
    });
    transaction.add_rule(chain, |rule| {
        rule.destination_was_translated();
        rule.source_address(register(0)).in_range(register(0), ranges.cluster, false);
        rule.not_to_link(LOOPBACK);
        load_key(rule);
        rule.member("remote", register(1)).masquerade();
    });
}

/// What must not pass: Service addresses that nobody translated, and what `route_localnet` on pod
/// links would let pods send to the host's loopback addresses.
fn guards(transaction: &mut Transaction, ranges: &Ranges) {
    let chain = "guard-prerouting";
    transaction.add_chain(chain, hook("filter", PREROUTING, BEFORE_TRACKING));
    transaction.add_rule(chain, |rule| {
        rule.from_link(POD_LINK_PREFIX).source_address(register(0));
        rule.in_range(register(0), loopback_range(), true).verdict(Verdict::Drop);
    });
    transaction.add_rule(chain, |rule| {
        rule.from_link(POD_LINK_PREFIX).destination_address(register(0));
        rule.in_range(register(0), loopback_range(), true).verdict(Verdict::Drop);
    });
    for (chain, number) in [("guard-forward", FORWARD), ("guard-output", OUTPUT)] {
        transaction.add_chain(chain, hook("filter", number, FILTER));
        transaction.add_rule(chain, |rule| {
            rule.destination_address(register(0)).in_range(register(0), ranges.service, true);
            rule.destination_is_local(false).reject();
        });
        transaction.add_rule(chain, |rule| {
            load_key(rule);
            rule.member("refused", register(1)).reject();
        });
    }
    transaction.add_rule("guard-forward", |rule| {
        rule.to_link(NODE_LINK).reject();
    });
    transaction.add_rule("guard-output", |rule| {
        const REDIRECT: u8 = 5;
        rule.to_link(POD_LINK_PREFIX).icmp_type(REDIRECT).verdict(Verdict::Drop);
    });
    transaction.add_chain("guard-input", hook("filter", INPUT, FILTER));
    transaction.add_rule("guard-input", |rule| {
        rule.destination_is_local(true);
        rule.protocol(register(2)).destination_port(register(3));
        rule.member("refused-nodeports", register(2)).reject();
    });
}

/// Writes the chain of a [`Pick`]. Registers: 0 client, 1 address, 2 protocol, 3 port, 4 slot and
/// then the endpoint's address, 5 its port.
pub fn add_pick(transaction: &mut Transaction, pick: Pick) {
    let chain = pick.to_string();
    let key = |rule: &mut Expr<'_>| {
        if pick.node_port {
            rule.constant(&[0; 4], register(1));
            rule.protocol(register(2)).destination_port(register(3));
        } else {
            load_key(rule);
        }
    };
    let choose = |rule: &mut Expr<'_>| {
        rule.random(pick.slots, register(4)).find("endpoints", register(1), register(4));
    };
    transaction.add_chain(&chain, None);
    if let Some(seconds) = pick.sticky {
        let milliseconds = u64::from(seconds) * 1000;
        let remember = |rule: &mut Expr<'_>| {
            rule.remember("affinity", register(0), register(4), milliseconds);
            rule.translate_destination(register(4), register(5));
        };
        transaction.add_rule(&chain, |rule| {
            rule.source_address(register(0));
            key(rule);
            rule.find("affinity", register(0), register(4)).member("sticky", register(1));
            remember(rule);
        });
        transaction.add_rule(&chain, |rule| {
            rule.source_address(register(0));
            key(rule);
            rule.constant(&[0; 8], register(4)).forget("affinity", register(0), register(4));
            choose(rule);
            remember(rule);
        });
    }
    transaction.add_rule(&chain, |rule| {
        key(rule);
        choose(rule);
        rule.translate_destination(register(4), register(5));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_name_tells_what_it_picks() {
        for node_port in [false, true] {
            for sticky in [None, Some(10_800)] {
                let pick = Pick { slots: 3, node_port, sticky };
                assert_eq!(pick.to_string().parse(), Ok(pick));
            }
        }
        assert!("layout-00000001".parse::<Pick>().is_err());
        assert!("services".parse::<Pick>().is_err());
    }

    #[test]
    fn another_range_is_another_layout() {
        let ranges = |cluster: &str| Ranges {
            cluster: cluster.parse().unwrap(),
            service: "10.43.0.0/16".parse().unwrap(),
        };
        assert_ne!(ranges("10.42.0.0/16").layout_chain(), ranges("10.44.0.0/16").layout_chain());
        assert!(Set::ALL.iter().zip(SETS).all(|(set, spec)| set.name() == spec.name));
    }
}
