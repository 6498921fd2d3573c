//! Allocation against a small store that checks companions as the real one does.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::api::storage;

/// Keys with values and revisions, and the transaction's rule.
#[derive(Default)]
struct Cluster {
    keys: BTreeMap<Bytes, (Bytes, u64)>,
    revision: u64,
}

impl Lookup for Cluster {
    fn get(&self, key: &[u8]) -> Option<(Bytes, u64)> {
        self.keys.get(key).cloned()
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&Bytes, &Bytes) -> bool) {
        for (key, (value, _)) in &self.keys {
            if key.starts_with(prefix) && !each(key, value) {
                return;
            }
        }
    }
}

impl Cluster {
    fn with_range(cidrs: &[&str]) -> Self {
        let mut this = Self::default();
        let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        let key = storage::key("servicecidrs", "networking.k8s.io", "", "kubernetes");
        this.put(key, &object);
        this
    }

    fn put(&mut self, key: Bytes, value: &Value) {
        self.revision += 1;
        self.keys.insert(key, (value.to_string().into(), self.revision));
    }

    /// Applies all companions, or none.
    fn commit(&mut self, companions: Vec<Companion>) -> bool {
        let holds = |one: &Companion| {
            self.keys.get(&one.key).map_or(0, |(_, revision)| *revision) == one.expected
        };
        if !companions.iter().all(holds) {
            return false;
        }
        for one in companions {
            match one.change {
                CompanionChange::Put(value) => self.put(one.key, &value),
                CompanionChange::Delete => {
                    self.keys.remove(&one.key);
                }
                CompanionChange::Keep => {}
            }
        }
        true
    }

    fn create(&mut self, name: &str, spec: Value) -> Result<Value> {
        let mut service = service(name, spec);
        let companions = companions(Some(&mut service), None, self, Timestamp::UNIX_EPOCH)?;
        assert!(self.commit(companions));
        Ok(service)
    }

    fn update(&mut self, old: &Value, spec: Value) -> Result<Value> {
        let mut new = service(meta::name(old), spec);
        prepare_update(&mut new, old);
        let found = companions(Some(&mut new), Some(old), self, Timestamp::UNIX_EPOCH)?;
        let errors = check_update(&new, old);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Service", meta::name(old), &errors));
        }
        assert!(self.commit(found));
        Ok(new)
    }

    fn count(&self, prefix: &str) -> usize {
        self.keys.keys().filter(|key| key.starts_with(prefix.as_bytes())).count()
    }

    fn addresses(&self) -> usize {
        self.count("ipaddresses.")
    }

    fn ports(&self) -> usize {
        self.count(PORTS_PREFIX)
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

fn plain() -> Value {
    json!({"selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP"}]})
}

#[test]
fn a_service_gets_an_address_object_and_gives_it_back() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let made = cluster.create("web", plain()).unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    let address = spec["clusterIP"].as_str().unwrap();
    let number: std::net::Ipv4Addr = address.parse().unwrap();
    assert!(u32::from(number) > u32::from_be_bytes([10, 43, 1, 0]), "{address} is in the band");
    let key = storage::key("ipaddresses", "networking.k8s.io", "", address);
    let object: Value = serde_json::from_slice(&cluster.get(&key).unwrap().0).unwrap();
    assert_eq!(object["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    let parent = json!({"resource": "services", "namespace": "ns", "name": "web"});
    assert_eq!(object["spec"]["parentRef"], parent);
    let freed = companions(None, Some(&made), &cluster, Timestamp::UNIX_EPOCH).unwrap();
    assert!(cluster.commit(freed));
    assert_eq!(cluster.addresses(), 0);
}

#[test]
fn addresses_asked_for_are_given_once_and_only_within_the_range() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let ask = |address: &str| {
        let mut spec = plain();
        spec["clusterIP"] = json!(address);
        spec
    };
    assert_eq!(
        cluster.create("one", ask("10.43.0.10")).unwrap()["spec"]["clusterIPs"],
        json!(["10.43.0.10"])
    );
    for (address, text) in [
        ("10.43.0.10", "failed to allocate IP 10.43.0.10: provided IP is already allocated"),
        (
            "192.0.2.1",
            "failed to allocate IP 192.0.2.1: the provided network does not match the current \
             range",
        ),
        (
            "10.43.255.255",
            "the provided IP (10.43.255.255) is not in the valid range. The range of valid IPs is \
             10.43.0.0/16",
        ),
        ("nonsense", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    ] {
        let status = cluster.create("two", ask(address)).unwrap_err();
        assert_eq!(status.code, 422);
        assert!(status.message.ends_with(text), "{}", status.message);
    }
    let status = Cluster::default().create("x", plain()).unwrap_err();
    assert!(
        status.message.ends_with("not configured on this cluster")
            || status.message.ends_with("allocator not ready"),
        "{status}"
    );
}

#[test]
fn a_full_range_is_said_to_be_full_and_every_address_is_used() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/29"]);
    for number in 0..6 {
        cluster.create(&format!("s{number}"), plain()).unwrap();
    }
    assert_eq!(cluster.addresses(), 6);
    let status = cluster.create("late", plain()).unwrap_err();
    assert!(
        status
            .message
            .ends_with("failed to allocate a serviceIP for Service \"late\": range is full")
    );
}

#[test]
fn two_that_meet_in_the_store_do_not_share_and_the_loser_picks_again() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/30"]);
    let now = Timestamp::UNIX_EPOCH;
    let mut one = service("one", json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let mut two = service("two", json!({"clusterIP": "10.43.0.1", "ports": [{"port": 80}]}));
    let mut three = service("three", json!({"clusterIP": "10.43.0.1", "ports": [{"port": 80}]}));
    let for_two = companions(Some(&mut two), None, &cluster, now).unwrap();
    let for_three = companions(Some(&mut three), None, &cluster, now).unwrap();
    assert!(cluster.commit(for_two));
    assert!(!cluster.commit(for_three), "the same address was given twice");
    let again = companions(Some(&mut three), None, &cluster, now).unwrap_err();
    assert!(again.message.ends_with("provided IP is already allocated"));
    let last = companions(Some(&mut one), None, &cluster, now).unwrap();
    assert!(cluster.commit(last));
    assert_eq!(one["spec"]["clusterIP"], "10.43.0.2");
}

#[test]
fn headless_and_external_services_hold_nothing() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let headless = cluster
        .create("h", json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": []}))
        .unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "SingleStack");
    let alone = cluster.create("a", json!({"clusterIP": "None"})).unwrap();
    assert_eq!(alone["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(alone["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let external =
        cluster.create("e", json!({"type": "ExternalName", "externalName": "x.org"})).unwrap();
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert_eq!(cluster.addresses(), 0);
}

#[test]
fn an_update_keeps_what_was_allocated_and_a_change_of_type_gives_it_back() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let mut spec = plain();
    spec["type"] = json!("NodePort");
    let made = cluster.create("web", spec.clone()).unwrap();
    assert_eq!((cluster.addresses(), cluster.ports()), (1, 1));
    let same = cluster.update(&made, spec).unwrap();
    assert_eq!(same, made, "an update that says nothing changes nothing");
    let mut moved = made["spec"].clone();
    moved["clusterIP"] = json!("10.43.0.9");
    moved["clusterIPs"] = json!(["10.43.0.9"]);
    let status = cluster.update(&made, moved).unwrap_err();
    assert!(status.message.contains("may not change once set"), "{status}");
    let mut internal = made["spec"].clone();
    internal["type"] = json!("ClusterIP");
    let internal = cluster.update(&made, internal).unwrap();
    assert_eq!(internal["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!((cluster.addresses(), cluster.ports()), (1, 0));
    let mut external = internal["spec"].clone();
    external["type"] = json!("ExternalName");
    let external = cluster.update(&internal, external).unwrap();
    assert_eq!(external["spec"].get("clusterIPs"), None);
    assert_eq!(cluster.addresses(), 0);
    let back = cluster.update(&external, plain()).unwrap();
    assert!(back["spec"]["clusterIP"].is_string());
    assert_eq!(cluster.addresses(), 1);
}

#[test]
fn node_ports_are_given_once_and_shared_by_the_protocols_of_a_port() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let dns = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "udp", "port": 53, "protocol": "UDP"}]});
    let dns = cluster.create("dns", dns).unwrap();
    let port = dns["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_086..=32_767).contains(&port), "{port}");
    assert_eq!(dns["spec"]["ports"][1]["nodePort"], port);
    assert_eq!(cluster.ports(), 1);
    let ask = |number: i64| {
        let port = json!({"port": 80, "protocol": "TCP", "nodePort": number});
        json!({"type": "NodePort", "ports": [port]})
    };
    for (number, text) in [
        (port, "spec.ports[0].nodePort: Invalid value: NUMBER: provided port is already allocated"),
        (
            80,
            "spec.ports[0].nodePort: Invalid value: NUMBER: provided port is not in the valid \
             range. The range of valid ports is 30000-32767",
        ),
    ] {
        let status = cluster.create("web", ask(number)).unwrap_err();
        let text = text.replace("NUMBER", &number.to_string());
        assert!(status.message.ends_with(&text), "{}", status.message);
    }
    let web = cluster.create("web", ask(30_001)).unwrap();
    let moved = cluster.update(&web, ask(30_002)).unwrap();
    assert_eq!(moved["spec"]["ports"][0]["nodePort"], 30_002);
    assert!(cluster.create("next", ask(30_001)).is_ok(), "a port left is free");
}

#[test]
fn a_balancer_gets_a_health_port_only_for_local_traffic() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16"]);
    let spec = |policy: &str, nodes: bool| {
        json!({"type": "LoadBalancer", "externalTrafficPolicy": policy,
            "allocateLoadBalancerNodePorts": nodes, "ports": [{"port": 80, "protocol": "TCP"}]})
    };
    let made = cluster.create("lb", spec("Local", true)).unwrap();
    assert!(made["spec"]["healthCheckNodePort"].is_i64());
    assert_eq!(cluster.ports(), 2);
    let changed = {
        let mut changed = made["spec"].clone();
        changed["externalTrafficPolicy"] = json!("Cluster");
        cluster.update(&made, changed).unwrap()
    };
    assert_eq!(changed["spec"].get("healthCheckNodePort"), None);
    assert_eq!(cluster.ports(), 1);
    let bare = cluster.create("bare", spec("Cluster", false)).unwrap();
    assert_eq!(bare["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn two_families_are_given_where_both_are_configured() {
    let mut cluster = Cluster::with_range(&["10.43.0.0/16", "fd00:43::/112"]);
    let mut spec = plain();
    spec["ipFamilyPolicy"] = json!("PreferDualStack");
    let made = cluster.create("both", spec.clone()).unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(made["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(cluster.addresses(), 2);
    let mut single = made["spec"].clone();
    single["ipFamilyPolicy"] = json!("SingleStack");
    let single = cluster.update(&made, single).unwrap();
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(cluster.addresses(), 1);
    let mut alone = Cluster::with_range(&["10.43.0.0/16"]);
    spec["ipFamilyPolicy"] = json!("RequireDualStack");
    let status = alone.create("both", spec).unwrap_err();
    assert!(status.message.ends_with("this cluster is not configured for dual-stack services"));
}
