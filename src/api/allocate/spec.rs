//! The part of a Service's spec that allocation is about, as plain values.

use crate::object::{Map, Value, meta};

/// What `clusterIP` says when there is to be no address.
pub(super) const NONE: &str = "None";

/// A port of the Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) port: i64,
    /// 0 for none.
    pub(super) node_port: i64,
}

/// The fields in question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spec {
    pub(super) kind: String,
    pub(super) cluster_ip: String,
    pub(super) cluster_ips: Vec<String>,
    pub(super) families: Vec<String>,
    /// "" for unset.
    pub(super) policy: String,
    pub(super) has_selector: bool,
    pub(super) ports: Vec<Port>,
    pub(super) allocates_for_balancer: Option<bool>,
    pub(super) traffic_policy: String,
    /// 0 for none.
    pub(super) health_port: i64,
    balancer_class: String,
}

fn texts(object: &Value, path: &[&str]) -> Vec<String> {
    let list = meta::at(object, path).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn number(object: &Value, path: &[&str]) -> i64 {
    meta::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

impl Spec {
    pub(super) fn read(object: &Value) -> Self {
        let text = |field: &str| meta::text(object, &["spec", field]).to_owned();
        let ports = meta::at(object, &["spec", "ports"]).and_then(Value::as_array);
        let port = |value: &Value| Port {
            name: meta::text(value, &["name"]).to_owned(),
            protocol: meta::text(value, &["protocol"]).to_owned(),
            port: number(value, &["port"]),
            node_port: number(value, &["nodePort"]),
        };
        let kind = match text("type").as_str() {
            "" => "ClusterIP".to_owned(),
            kind => kind.to_owned(),
        };
        Self {
            kind,
            cluster_ip: text("clusterIP"),
            cluster_ips: texts(object, &["spec", "clusterIPs"]),
            families: texts(object, &["spec", "ipFamilies"]),
            policy: text("ipFamilyPolicy"),
            has_selector: meta::at(object, &["spec", "selector"])
                .and_then(Value::as_object)
                .is_some_and(|selector| !selector.is_empty()),
            ports: ports.into_iter().flatten().map(port).collect(),
            allocates_for_balancer: meta::at(object, &["spec", "allocateLoadBalancerNodePorts"])
                .and_then(Value::as_bool),
            traffic_policy: text("externalTrafficPolicy"),
            health_port: number(object, &["spec", "healthCheckNodePort"]),
            balancer_class: text("loadBalancerClass"),
        }
    }

    /// Writes the fields back; what is empty is left out.
    pub(super) fn write(&self, object: &mut Value) {
        let Some(spec) = meta::at_mut(object, &["spec"]) else { return };
        if spec.is_null() {
            *spec = Value::Object(Map::new());
        }
        let Some(spec) = spec.as_object_mut() else { return };
        let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
        let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
        for (field, value) in [
            ("clusterIP", text(&self.cluster_ip)),
            ("clusterIPs", list(&self.cluster_ips)),
            ("ipFamilies", list(&self.families)),
            ("ipFamilyPolicy", text(&self.policy)),
            ("allocateLoadBalancerNodePorts", self.allocates_for_balancer.map(Value::from)),
            ("externalTrafficPolicy", text(&self.traffic_policy)),
            ("loadBalancerClass", text(&self.balancer_class)),
            ("healthCheckNodePort", (self.health_port != 0).then(|| self.health_port.into())),
        ] {
            match value {
                Some(value) => spec.insert(field.to_owned(), value),
                None => spec.remove(field),
            };
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (value, port) in ports.into_iter().flatten().zip(&self.ports) {
            let Some(value) = value.as_object_mut() else { continue };
            match port.node_port {
                0 => value.remove("nodePort"),
                number => value.insert("nodePort".to_owned(), number.into()),
            };
        }
    }

    pub(super) fn is_external_name(&self) -> bool {
        self.kind == "ExternalName"
    }

    pub(super) fn is_headless(&self) -> bool {
        self.cluster_ips.len() == 1 && self.cluster_ips[0] == NONE
    }

    /// Whether ports of the node lead to it.
    pub(super) fn is_on_nodes(&self) -> bool {
        matches!(self.kind.as_str(), "NodePort" | "LoadBalancer")
    }

    /// Whether every port gets a port of the node.
    pub(super) fn needs_node_ports(&self) -> bool {
        self.kind == "NodePort"
            || (self.kind == "LoadBalancer" && self.allocates_for_balancer.unwrap_or(true))
    }

    /// Whether a port tells balancers which nodes have endpoints.
    pub(super) fn needs_health_port(&self) -> bool {
        self.kind == "LoadBalancer" && self.traffic_policy == "Local"
    }

    /// The addresses that it holds.
    pub(super) fn addresses(&self) -> &[String] {
        if self.is_external_name() || self.is_headless() { &[] } else { &self.cluster_ips }
    }

    /// The ports of nodes that it holds.
    pub(super) fn node_ports(&self) -> Vec<i64> {
        let mut ports: Vec<i64> = self.ports.iter().map(|port| port.node_port).collect();
        if self.needs_health_port() {
            ports.push(self.health_port);
        }
        ports.retain(|port| *port != 0);
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn same_addresses(&self, other: &Self) -> bool {
        self.cluster_ips == other.cluster_ips
    }

    /// Takes over what was allocated and is not mentioned.
    pub(super) fn carry_over(&mut self, old: &Self) {
        if !old.is_external_name() && !self.is_external_name() {
            if self.cluster_ip.is_empty() {
                self.cluster_ip.clone_from(&old.cluster_ip);
            }
            if self.cluster_ips.is_empty() {
                self.cluster_ips.clone_from(&old.cluster_ips);
            }
        }
        if old.needs_node_ports() && self.needs_node_ports() {
            let uses = |spec: &Self, number: i64| {
                number != 0 && spec.ports.iter().any(|port| port.node_port == number)
            };
            let kept: Vec<i64> = old
                .ports
                .iter()
                .map(|port| port.node_port)
                .filter(|number| uses(self, *number))
                .collect();
            for port in self.ports.iter_mut().filter(|port| port.node_port == 0) {
                // Of several ports of one name the last counts, as in upstream's map.
                let before = old.ports.iter().rev().find(|before| before.name == port.name);
                let number = before.map_or(0, |before| before.node_port);
                if !kept.contains(&number) {
                    port.node_port = number;
                }
            }
        }
        if old.needs_health_port() && self.needs_health_port() && self.health_port == 0 {
            self.health_port = old.health_port;
        }
    }

    /// Keeps the singular and the plural of the address in step.
    pub(super) fn normalize(&mut self, old: Option<&Self>) {
        let Some(old) = old else {
            if !self.cluster_ip.is_empty() && self.cluster_ips.is_empty() {
                self.cluster_ips = vec![self.cluster_ip.clone()];
            }
            return;
        };
        if self.cluster_ips.is_empty() && old.cluster_ip == self.cluster_ip {
            self.cluster_ips.clone_from(&old.cluster_ips);
        }
        if old.cluster_ip != self.cluster_ip && self.same_addresses(old) {
            self.cluster_ips = match self.cluster_ip.as_str() {
                "" => Vec::new(),
                address => vec![address.to_owned()],
            };
        }
    }

    /// Drops what the new type has no use for, unless it was changed on purpose.
    pub(super) fn drop_by_type(&mut self, old: &Self) {
        if !old.is_external_name() && self.is_external_name() {
            if old.cluster_ip == self.cluster_ip && self.same_addresses(old) {
                self.cluster_ip.clear();
                self.cluster_ips.clear();
            }
            if old.families == self.families {
                self.families.clear();
            }
            if old.policy == self.policy {
                self.policy.clear();
            }
        }
        if old.is_on_nodes() && !self.is_on_nodes() {
            let numbers: Vec<i64> = old.ports.iter().map(|port| port.node_port).collect();
            let all_old = |port: &Port| port.node_port == 0 || numbers.contains(&port.node_port);
            if self.ports.iter().all(all_old) {
                self.ports.iter_mut().for_each(|port| port.node_port = 0);
            }
        }
        let same_health = old.health_port == self.health_port;
        if old.needs_health_port() && !self.needs_health_port() && same_health {
            self.health_port = 0;
        }
        if old.kind == "LoadBalancer" && self.kind != "LoadBalancer" {
            if old.allocates_for_balancer == self.allocates_for_balancer {
                self.allocates_for_balancer = None;
            }
            if old.balancer_class == self.balancer_class {
                self.balancer_class.clear();
            }
        }
        if old.is_on_nodes() && !self.is_on_nodes() && old.traffic_policy == self.traffic_policy {
            self.traffic_policy.clear();
        }
    }
}
