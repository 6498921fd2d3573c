//! What one Service means as DNS records: a pure function of the Service and its EndpointSlices,
//! after the Kubernetes DNS specification 1.1.0.
//!
//! Why per Service, like the proxy's plan: a change of one renders only its own names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::Endpoint;

use super::wire::{Name, name, reverse};
use crate::net::proxy::plan::{ServiceState, addresses};

/// A record without its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// An address.
    A(Ipv4Addr),
    /// Another name to ask for.
    Cname(Name),
    /// The name of an address.
    Ptr(Name),
    /// Where a named port is; with the target's address.
    Srv {
        /// The port.
        port: u16,
        /// How many share the work.
        among: u16,
        /// The host.
        target: Name,
        /// Its address.
        address: Ipv4Addr,
    },
    /// A text.
    Txt(String),
    /// The zone's name server.
    Ns(Name),
}

/// Records by owner; an owner without records exists and has none of any type.
pub type Records = BTreeMap<Name, BTreeSet<Record>>;

/// A named port.
type Port = (String, String, u16);

/// Plans one Service in the zone `zone` (as in "cluster.local").
pub fn plan(state: &ServiceState, zone: &str) -> Records {
    let mut records = Writer { records: Records::new() };
    let metadata = &state.service.metadata;
    let (Some(service), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return records.records;
    };
    let Some(spec) = &state.service.spec else { return records.records };
    let own = format!("{service}.{namespace}.svc.{zone}");
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref().and_then(name);
        records.add(&own, target.map(Record::Cname));
        return records.records;
    }
    let addresses = addresses(spec);
    if spec.cluster_ip.as_deref() == Some("None") {
        headless(&mut records, state, &own);
    }
    for address in &addresses {
        records.add(&own, Some(Record::A(*address)));
        records.add_at(reverse(*address), name(&own).map(Record::Ptr));
        for port in service_ports(spec) {
            records.port(&own, &own, *address, &port, addresses.len());
        }
    }
    records.records
}

fn service_ports(spec: &ServiceSpec) -> impl Iterator<Item = Port> {
    spec.ports.iter().flatten().filter_map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let number = u16::try_from(port.port).ok()?;
        Some((port.name.clone().unwrap_or_default(), protocol, number))
    })
}

fn headless(records: &mut Writer, state: &ServiceState, own: &str) {
    // The Service exists also while nothing is ready: no address is not "no such name".
    records.add(own, None);
    let mut found: BTreeMap<(Ipv4Addr, String), BTreeSet<Port>> = BTreeMap::new();
    for slice in state.slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.clone().unwrap_or_default(), protocol, number))
        });
        let ports: BTreeSet<Port> = ports.collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| ready(endpoint)) {
            for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
                let host = endpoint.hostname.clone().filter(|host| !host.is_empty());
                let host = host.unwrap_or_else(|| dashed(address));
                found.entry((address, host)).or_default().extend(ports.iter().cloned());
            }
        }
    }
    let among = found.len();
    for ((address, host), ports) in found {
        let target = format!("{host}.{own}");
        records.add(own, Some(Record::A(address)));
        records.add(&target, Some(Record::A(address)));
        records.add_at(reverse(address), name(&target).map(Record::Ptr));
        for port in &ports {
            records.port(own, &target, address, port, among);
        }
    }
}

/// An endpoint without a hostname is called after its address.
fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

struct Writer {
    records: Records,
}

impl Writer {
    fn add(&mut self, owner: &str, record: Option<Record>) {
        if let Some(owner) = name(owner) {
            self.add_at(owner, record);
        }
    }

    fn add_at(&mut self, owner: Name, record: Option<Record>) {
        self.records.entry(owner).or_default().extend(record);
    }

    /// `_port._protocol` of a Service, and the same at the Service's own name.
    fn port(&mut self, own: &str, target: &str, address: Ipv4Addr, port: &Port, among: usize) {
        let (port_name, protocol, number) = port;
        let Some(target) = name(target) else { return };
        let among = u16::try_from(among.max(1)).unwrap_or(u16::MAX);
        let record = Record::Srv { port: *number, among, target, address };
        self.add(own, Some(record.clone()));
        if !port_name.is_empty() {
            self.add(&format!("_{port_name}._{protocol}.{own}"), Some(record));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// A Service `web` in `default` with these endpoints.
    pub fn service(spec: Value, endpoints: Value) -> ServiceState {
        let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}]});
        ServiceState {
            service: Arc::new(serde_json::from_value(service).unwrap()),
            slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
        }
    }

    fn owners(records: &Records) -> Vec<String> {
        let text = |label: &[u8]| String::from_utf8_lossy(label).into_owned();
        let join = |name: &Name| super::super::wire::labels(name).map(text).collect::<Vec<_>>();
        records.keys().map(|name| join(name).join(".")).collect()
    }

    #[test]
    fn a_cluster_ip_has_address_port_and_reverse_names() {
        let spec = json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}]});
        let records = plan(&service(spec, json!([{"addresses": ["10.42.0.2"]}])), "cluster.local");
        let mut names = owners(&records);
        names.sort();
        assert_eq!(
            names,
            [
                "1.1.43.10.in-addr.arpa",
                "_http._tcp.web.default.svc.cluster.local",
                "web.default.svc.cluster.local"
            ]
        );
    }

    #[test]
    fn a_headless_service_names_each_ready_endpoint() {
        let endpoints = json!([{"addresses": ["10.42.0.2"], "hostname": "web-0"},
            {"addresses": ["10.42.0.3"]},
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false}}]);
        let records = plan(&service(json!({"clusterIP": "None"}), endpoints), "cluster.local");
        let at = |text: &str| records.get(&name(text).unwrap()).map(BTreeSet::len);
        assert_eq!(at("web-0.web.default.svc.cluster.local"), Some(1));
        assert_eq!(at("10-42-0-3.web.default.svc.cluster.local"), Some(1));
        assert_eq!(at("10-42-0-4.web.default.svc.cluster.local"), None);
        assert_eq!(at("_http._tcp.web.default.svc.cluster.local"), Some(2));
        assert_eq!(at("2.0.42.10.in-addr.arpa"), Some(1));
        let empty = plan(&service(json!({"clusterIP": "None"}), json!([])), "cluster.local");
        assert_eq!(empty.len(), 1, "the Service itself exists");
    }
}
