//! What one Service means as set elements: a pure function of the Service, its EndpointSlices and
//! a few facts about the node.
//!
//! Why per Service: a change of one is then planned without looking at the others; what several
//! Services share (an endpoint that may reach itself) is joined by [`super::table::Table`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::layout::{Pick, Set};
use crate::net::nft::Data;

/// Seconds that ClientIP affinity lasts where the Service names none (upstream's default).
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;
/// A Service with this label belongs to another proxy.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What a plan knows about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name, as in `endpoints[].nodeName`.
    pub name: String,
    /// The cluster DNS address: our own DNS answers there, whatever Service claims it.
    pub dns: Ipv4Addr,
}

/// A Service with its EndpointSlices.
#[derive(Clone, Debug)]
pub struct ServiceState {
    /// The Service.
    pub service: Arc<Service>,
    /// The slices with its `kubernetes.io/service-name` label.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// A transport protocol by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// From its name in the API; TCP where there is none.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Where clients connect to; a node port has the address 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Front {
    /// The address.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing: membership.
    Member,
    /// A chain that picks an endpoint.
    Pick(Pick),
    /// An endpoint.
    Endpoint(SocketAddrV4),
    /// Something in the kernel that this program would not have written.
    Foreign,
}

impl Value {
    /// As nftables has it.
    pub fn data(&self) -> Data {
        match self {
            Self::Member | Self::Foreign => Data::None,
            Self::Pick(pick) => Data::Goto(pick.to_string()),
            Self::Endpoint(endpoint) => Data::Bytes(endpoint_bytes(endpoint)),
        }
    }

    /// Reads it back from nftables.
    pub fn from_data(data: &Data) -> Self {
        match data {
            Data::None => Self::Member,
            Data::Goto(chain) => chain.parse().map_or(Self::Foreign, Self::Pick),
            Data::Bytes(bytes) => match bytes[..] {
                [a, b, c, d, high, low, ..] => Self::Endpoint(SocketAddrV4::new(
                    Ipv4Addr::new(a, b, c, d),
                    u16::from_be_bytes([high, low]),
                )),
                _ => Self::Foreign,
            },
        }
    }
}

/// An element's set and key.
pub type Place = (Set, Vec<u8>);
/// Elements.
pub type Elements = BTreeMap<Place, Value>;

/// Plans one Service.
pub fn plan(state: &ServiceState, node: &NodeInfo) -> Elements {
    let mut elements = Elements::new();
    let Some(spec) = &state.service.spec else { return elements };
    let labels = state.service.metadata.labels.as_ref();
    let other = labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY_LABEL));
    let addresses = addresses(spec);
    if other || spec.type_.as_deref() == Some("ExternalName") || addresses.contains(&node.dns) {
        return elements;
    }
    let external = external_addresses(&state.service, spec);
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
        let all = Backends::of(state, port, protocol, node);
        let inside = all.for_policy(spec.internal_traffic_policy.as_deref());
        let outside = all.for_policy(spec.external_traffic_policy.as_deref());
        let sticky = affinity(spec);
        let mut add = |address, port: i32, backends| {
            if let Ok(port @ 1..) = u16::try_from(port) {
                put(&mut elements, Front { address, protocol, port }, backends, sticky);
            }
        };
        addresses.iter().for_each(|address| add(*address, port.port, inside));
        external.iter().for_each(|address| add(*address, port.port, outside));
        if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            add(Ipv4Addr::UNSPECIFIED, port.node_port.unwrap_or(0), outside);
        }
        if !addresses.is_empty() {
            shared(&mut elements, &all, protocol);
        }
    }
    elements
}

/// The IPv4 cluster addresses; none for a headless Service.
pub fn addresses(spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|text| text.parse().ok()).collect()
}

/// Addresses outside that others route to this node. A load balancer with source ranges is left
/// out: nothing here would hold them.
fn external_addresses(service: &Service, spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let named = spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok());
    let mut found: BTreeSet<Ipv4Addr> = named.collect();
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
        return found;
    }
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    for ingress in status.and_then(|status| status.ingress.as_ref()).into_iter().flatten() {
        if ingress.ip_mode.as_deref() != Some("Proxy") {
            found.extend(ingress.ip.as_ref().and_then(|text| text.parse::<Ipv4Addr>().ok()));
        }
    }
    found
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|all| all.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    u32::try_from(seconds.unwrap_or(AFFINITY_SECONDS_DEFAULT)).ok().filter(|seconds| *seconds > 0)
}

/// The endpoints of one port.
#[derive(Debug, Default)]
struct Backends {
    all: Vec<SocketAddrV4>,
    local: Vec<SocketAddrV4>,
}

/// How far an endpoint can be used; only the best that there are serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Usable {
    /// Ending, but it still answers.
    WhileEnding,
    /// Ready.
    Ready,
}

fn usable(endpoint: &Endpoint) -> Option<Usable> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ending = conditions.terminating.unwrap_or(false);
    match conditions.ready.unwrap_or(true) {
        true => Some(Usable::Ready),
        false if ending && conditions.serving.unwrap_or(false) => Some(Usable::WhileEnding),
        false => None,
    }
}

impl Backends {
    fn of(state: &ServiceState, port: &ServicePort, protocol: Protocol, node: &NodeInfo) -> Self {
        let mut found = BTreeMap::new();
        for slice in state.slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let named = slice.ports.iter().flatten().find(|candidate| {
                let name = candidate.name.as_deref().unwrap_or("");
                name == port.name.as_deref().unwrap_or("")
                    && Protocol::parse(candidate.protocol.as_deref()) == Some(protocol)
            });
            let number = named.and_then(|found| found.port).and_then(|n| u16::try_from(n).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let local = endpoint.node_name.as_deref() == Some(&*node.name);
                let address = endpoint.addresses.first().and_then(|text| text.parse().ok());
                if let (Some(usable), Some(address)) = (usable(endpoint), address) {
                    // The same address may stand in two slices while one replaces the other.
                    let entry = found.entry(SocketAddrV4::new(address, number));
                    let now = (usable, local);
                    entry.and_modify(|old| *old = now.max(*old)).or_insert(now);
                }
            }
        }
        let best = |local_only: bool| {
            let among = || found.iter().filter(move |(_, (_, local))| *local || !local_only);
            let best = among().map(|(_, (usable, _))| *usable).max();
            among().filter(|(_, (usable, _))| Some(*usable) == best).map(|(at, _)| *at).collect()
        };
        Self { all: best(false), local: best(true) }
    }

    fn for_policy(&self, policy: Option<&str>) -> &[SocketAddrV4] {
        if policy == Some("Local") { &self.local } else { &self.all }
    }
}

fn put(elements: &mut Elements, front: Front, backends: &[SocketAddrV4], sticky: Option<u32>) {
    let node_port = front.address.is_unspecified();
    let key = front_bytes(&front);
    let own = if node_port { key[4..].to_vec() } else { key.clone() };
    let Ok(slots @ 1..) = u32::try_from(backends.len()) else {
        let set = if node_port { Set::RefusedNodePorts } else { Set::Refused };
        elements.insert((set, own), Value::Member);
        return;
    };
    let set = if node_port { Set::NodePorts } else { Set::Services };
    elements.insert((set, own), Value::Pick(Pick { slots, node_port, sticky }));
    for (slot, endpoint) in (0_u32..).zip(backends) {
        let key = [&key[..], &slot.to_ne_bytes()].concat();
        elements.insert((Set::Endpoints, key), Value::Endpoint(*endpoint));
    }
    if sticky.is_some() {
        for endpoint in backends {
            let key = [&key[..], &endpoint_bytes(endpoint)].concat();
            elements.insert((Set::Sticky, key), Value::Member);
        }
    }
}

/// Elements that depend on endpoints alone.
fn shared(elements: &mut Elements, backends: &Backends, protocol: Protocol) {
    for endpoint in &backends.all {
        if backends.local.contains(endpoint) {
            let octets = endpoint.ip().octets();
            elements.insert((Set::Hairpin, [octets, octets].concat()), Value::Member);
        } else {
            let front = Front { address: *endpoint.ip(), protocol, port: endpoint.port() };
            elements.insert((Set::Remote, front_bytes(&front)), Value::Member);
        }
    }
}

/// Address, protocol and port as they lie in registers, each padded to 32 bits.
pub fn front_bytes(front: &Front) -> Vec<u8> {
    let [high, low] = front.port.to_be_bytes();
    let rest = [front.protocol as u8, 0, 0, 0, high, low, 0, 0];
    [&front.address.octets()[..], &rest].concat()
}

fn endpoint_bytes(endpoint: &SocketAddrV4) -> Vec<u8> {
    let [high, low] = endpoint.port().to_be_bytes();
    [&endpoint.ip().octets()[..], &[high, low, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> NodeInfo {
        NodeInfo { name: "here".into(), dns: [10, 43, 0, 10].into() }
    }

    fn service(spec: serde_json::Value) -> Arc<Service> {
        let metadata = json!({"name": "web", "namespace": "default"});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let body = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"},
                      {"name": "dns", "port": 5353, "protocol": "UDP"}],
            "endpoints": endpoints});
        Arc::new(serde_json::from_value(body).unwrap())
    }

    fn spec(more: serde_json::Value) -> serde_json::Value {
        let mut spec = json!({"clusterIP": "10.43.1.1", "type": "NodePort",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080},
                      {"name": "dns", "port": 53, "protocol": "UDP"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    /// The elements in words.
    fn words(elements: &Elements) -> Vec<String> {
        let line = |((set, key), value): (&Place, &Value)| {
            let key: Vec<String> = key.iter().map(u8::to_string).collect();
            let value = match value {
                Value::Member => String::new(),
                Value::Pick(pick) => format!(" {pick}"),
                Value::Endpoint(endpoint) => format!(" {endpoint}"),
                Value::Foreign => " ?".to_owned(),
            };
            format!("{} {}{value}", set.name(), key.join("."))
        };
        elements.iter().map(line).collect()
    }

    fn planned(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<String> {
        let state = ServiceState { service: service(spec), slices: vec![slice(endpoints)] };
        words(&plan(&state, &node()))
    }

    #[test]
    fn ports_are_matched_by_name_and_each_slot_is_an_element() {
        let endpoints = json!([{"addresses": ["10.42.0.2"], "nodeName": "here"},
            {"addresses": ["192.168.7.7"]}]);
        assert_eq!(
            planned(spec(json!({})), endpoints),
            [
                "services 10.43.1.1.6.0.0.0.0.80.0.0 pick-2",
                "services 10.43.1.1.17.0.0.0.0.53.0.0 pick-2",
                "nodeports 6.0.0.0.117.128.0.0 node-2",
                "endpoints 0.0.0.0.6.0.0.0.117.128.0.0.0.0.0.0 10.42.0.2:8080",
                "endpoints 0.0.0.0.6.0.0.0.117.128.0.0.1.0.0.0 192.168.7.7:8080",
                "endpoints 10.43.1.1.6.0.0.0.0.80.0.0.0.0.0.0 10.42.0.2:8080",
                "endpoints 10.43.1.1.6.0.0.0.0.80.0.0.1.0.0.0 192.168.7.7:8080",
                "endpoints 10.43.1.1.17.0.0.0.0.53.0.0.0.0.0.0 10.42.0.2:5353",
                "endpoints 10.43.1.1.17.0.0.0.0.53.0.0.1.0.0.0 192.168.7.7:5353",
                "hairpin 10.42.0.2.10.42.0.2",
                "remote 192.168.7.7.6.0.0.0.31.144.0.0",
                "remote 192.168.7.7.17.0.0.0.20.233.0.0",
            ]
        );
    }

    #[test]
    fn without_ready_endpoints_every_front_is_refused() {
        let endpoints = json!([{"addresses": ["10.42.0.2"], "conditions": {"ready": false}}]);
        assert_eq!(
            planned(spec(json!({})), endpoints),
            [
                "refused 10.43.1.1.6.0.0.0.0.80.0.0",
                "refused 10.43.1.1.17.0.0.0.0.53.0.0",
                "refused-nodeports 6.0.0.0.117.128.0.0",
            ]
        );
    }

    #[test]
    fn ending_endpoints_serve_only_while_none_is_ready() {
        let ending = json!({"addresses": ["10.42.0.2"],
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let ready = json!({"addresses": ["10.42.0.3"]});
        let alone = planned(spec(json!({})), json!([ending]));
        assert!(alone.iter().any(|line| line.ends_with("10.42.0.2:8080")), "{alone:?}");
        let both = planned(spec(json!({})), json!([ending, ready]));
        assert!(!both.iter().any(|line| line.ends_with("10.42.0.2:8080")), "{both:?}");
    }

    #[test]
    fn affinity_names_its_time_and_lists_its_endpoints() {
        let sticky = json!({"sessionAffinity": "ClientIP", "type": "ClusterIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
        let lines = planned(spec(sticky), json!([{"addresses": ["10.42.0.2"]}]));
        assert!(lines.contains(&"services 10.43.1.1.6.0.0.0.0.80.0.0 pick-1-for-60s".to_owned()));
        assert!(
            lines.contains(&"sticky 10.43.1.1.6.0.0.0.0.80.0.0.10.42.0.2.31.144.0.0".to_owned())
        );
        assert!(!lines.iter().any(|line| line.starts_with("nodeports")));
    }

    #[test]
    fn local_policy_keeps_to_this_node() {
        let endpoints = json!([{"addresses": ["10.42.0.2"], "nodeName": "here"},
            {"addresses": ["10.42.1.2"], "nodeName": "there"}]);
        let lines = planned(spec(json!({"externalTrafficPolicy": "Local"})), endpoints);
        assert!(lines.contains(&"nodeports 6.0.0.0.117.128.0.0 node-1".to_owned()));
        assert!(lines.contains(&"services 10.43.1.1.6.0.0.0.0.80.0.0 pick-2".to_owned()));
    }

    #[test]
    fn headless_external_and_foreign_services_have_no_rules() {
        let endpoints = json!([{"addresses": ["10.42.0.2"]}]);
        for spec in [
            spec(json!({"clusterIP": "None", "type": "ClusterIP"})),
            spec(json!({"type": "ExternalName"})),
            spec(json!({"clusterIP": "10.43.0.10"})),
        ] {
            assert_eq!(planned(spec, endpoints.clone()), Vec::<String>::new());
        }
    }
}
