//! Service.
//!
//! Why so much guessing on update: a Service is a union over `type` whose allocated fields clients
//! often leave out or leave behind; upstream fills in and clears what the user can only have meant.

mod spec;

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, labels, list, or, texts, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, list_mut, map_mut};
use super::super::{names, validate};
use crate::api::allocate;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::api::storage::{Companion, Lookup};
use crate::object::status::{FieldError, Result};
use crate::object::{Map, Value, meta};

/// The Service's strategy; allocation of addresses and ports is added around it.
pub(in super::super) struct Service;

/// Seconds that `sessionAffinity: ClientIP` lasts by default.
const AFFINITY_SECONDS: i64 = 10_800;

fn text<'a>(service: &'a Value, name: &str) -> &'a str {
    meta::text(service, &["spec", name])
}

fn value<'a>(service: &'a Value, name: &str) -> &'a Value {
    meta::at(service, &["spec", name]).unwrap_or(&Value::Null)
}

fn needs_node_port(service: &Value) -> bool {
    matches!(text(service, "type"), "NodePort" | "LoadBalancer")
}

fn needs_health_port(service: &Value) -> bool {
    text(service, "type") == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local"
}

/// Reached from outside the cluster?
fn is_external(service: &Value) -> bool {
    needs_node_port(service)
        || (text(service, "type") == "ClusterIP"
            && !list(service, &["spec", "externalIPs"]).is_empty())
}

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        fill(spec, "sessionAffinity", "None");
        fill(spec, "type", "ClusterIP");
        let affinity = spec.get("sessionAffinity").and_then(Value::as_str).unwrap_or("");
        if affinity == "None" {
            spec.remove("sessionAffinityConfig");
        } else if affinity == "ClientIP"
            && let Some(config) = map_mut(spec, "sessionAffinityConfig")
            && let Some(client) = map_mut(config, "clientIP")
        {
            fill(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
        for port in list_mut(spec, "ports") {
            if let Some(port) = port.as_object_mut() {
                default_port(port);
            }
        }
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or("").to_owned();
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            fill(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            fill(spec, "allocateLoadBalancerNodePorts", true);
        }
        if is_external(object)
            && let Some(spec) = child_mut(object, &["spec"])
        {
            fill(spec, "externalTrafficPolicy", "Cluster");
        }
        let Some(status) = child_mut(object, &["status", "loadBalancer"]) else { return };
        for ingress in list_mut(status, "ingress").filter_map(Value::as_object_mut) {
            if kind == "LoadBalancer" && ingress.contains_key("ip") {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "loadBalancer": {} });
        let ip = text(object, "clusterIP").to_owned();
        if !ip.is_empty() && list(object, &["spec", "clusterIPs"]).is_empty() {
            meta::set(object, &["spec", "clusterIPs"], vec![Value::from(ip)]);
        }
    }

    fn prepare_update(&self, _write: &Write<'_>, new: &mut Value, old: &Value) {
        allocate::prepare_update(new, old);
    }

    fn companions(
        &self,
        write: &Write<'_>,
        new: Option<&mut Value>,
        old: Option<&Value>,
        view: &dyn Lookup,
    ) -> Result<Vec<Companion>> {
        if write.subresource == "status" {
            return Ok(Vec::new());
        }
        allocate::companions(new, old, view, write.now)
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        spec::check(object, None, &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource == "status" {
            load_balancer_status(new, old, &mut out);
        } else {
            spec::check_update(new, old, &mut out);
            spec::check(new, Some(old), &mut out);
        }
        out
    }

    fn check_name(&self, name: &str) -> Option<String> {
        names::first(names::dns_label, name)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", text(object, "clusterIP").to_owned()),
            ("spec.type", text(object, "type").to_owned()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Type"),
            col("Cluster-IP"),
            col("External-IP"),
            col("Port(s)"),
            AGE,
            wide("Selector"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ips = texts(object, &["spec", "clusterIPs"]);
        vec![
            text(object, "type").into(),
            ips.first().copied().unwrap_or("<none>").into(),
            external_address(object).into(),
            or(&ports(object), "<none>").into(),
            age(object, now).into(),
            labels(value(object, "selector").as_object()).into(),
        ]
    }
}

fn default_port(port: &mut Map) {
    fill(port, "protocol", "TCP");
    let number = port.get("port").cloned();
    let target = port.get("targetPort");
    let unset =
        target.is_none_or(|target| target.is_null() || target == "" || target.as_i64() == Some(0));
    if let (true, Some(number)) = (unset, number) {
        port.insert("targetPort".to_owned(), number);
    }
}

fn load_balancer_status(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let status = root.get("status");
    let balancer = status.get("loadBalancer");
    let ingress = balancer.get("ingress");
    if text(new, "type") != "LoadBalancer" && !ingress.is_empty() {
        out.push(ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    let before: Vec<&str> = list(old, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|one| meta::text(one, &["ip"]))
        .collect();
    for one in ingress.items() {
        let (ip, mode, host) = (one.get("ip"), one.get("ipMode"), one.get("hostname"));
        if !ip.text().is_empty() && !before.contains(&ip.text()) {
            validate::format(&ip, names::ip, out);
        }
        if !mode.is_set() {
            if !ip.text().is_empty() {
                out.push(mode.required("must be specified when `ip` is set"));
            }
        } else if ip.text().is_empty() {
            out.push(mode.forbidden("may not be specified when `ip` is not set"));
        } else {
            validate::optional_one_of(&mode, &["Proxy", "VIP"], out);
        }
        validate::optional_format(&host, names::dns_subdomain, out);
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            out.push(host.invalid("must be a DNS name, not an IP address"));
        }
    }
}

fn external_address(service: &Value) -> String {
    let own = texts(service, &["spec", "externalIPs"]);
    match text(service, "type") {
        "ClusterIP" | "NodePort" => or(&own.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let mut given: Vec<&str> = list(service, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|one| or(meta::text(one, &["ip"]), meta::text(one, &["hostname"])))
                .filter(|address| !address.is_empty())
                .collect();
            given.sort_unstable();
            given.dedup();
            given.extend(own);
            or(&given.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(service, "externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(service: &Value) -> String {
    let number = |port: &Value, name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
    let show = |port: &Value| {
        let protocol = meta::text(port, &["protocol"]);
        match (number(port, "port"), number(port, "nodePort")) {
            (number, node @ 1..) => format!("{number}:{node}/{protocol}"),
            (number, _) => format!("{number}/{protocol}"),
        }
    };
    list(service, &["spec", "ports"]).iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update, updated};

    fn service(spec: Value) -> Value {
        created(&Service, json!({"metadata": {"name": "s"}, "spec": spec}))
    }

    #[test]
    fn defaults_are_upstreams() {
        let made = service(json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}));
        assert_eq!(
            made["spec"],
            json!({
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                "sessionAffinity": "None", "type": "ClusterIP",
                "internalTrafficPolicy": "Cluster",
            })
        );
        assert_eq!(made["status"], json!({"loadBalancer": {}}));
        assert_eq!(errors_of_create(&Service, &made), Vec::<String>::new());
        let sticky =
            service(json!({"ports": [], "sessionAffinity": "ClientIP", "type": "NodePort"}));
        let config = json!({"clientIP": {"timeoutSeconds": 10800}});
        assert_eq!(sticky["spec"]["sessionAffinityConfig"], config);
        assert_eq!(sticky["spec"]["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn faults_are_told_in_upstreams_words() {
        for (spec, fault) in [
            (json!({}), "spec.ports: Required value"),
            (json!({"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name: Required value"),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for \
                 NodePort services",
            ),
            (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
            (
                json!({"ports": [{"port": 80}], "type": "Other"}),
                "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \
                 \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
        ] {
            let texts = errors_of_create(&Service, &service(spec));
            assert!(texts.iter().any(|text| text == fault), "{fault}\nfound {texts:#?}");
        }
    }

    #[test]
    fn an_update_keeps_what_was_allocated_and_clears_what_has_no_use() {
        let old = service(json!({
            "type": "NodePort", "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30001}],
        }));
        let plain = json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80}]}});
        let kept = updated(&Service, "", plain, &old);
        assert_eq!(kept["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(kept["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30001);
        let mut inner = old.clone();
        inner["spec"]["type"] = "ClusterIP".into();
        let inner = updated(&Service, "", inner, &old);
        assert!(inner["spec"]["ports"][0].get("nodePort").is_none());
        assert!(inner["spec"].get("externalTrafficPolicy").is_none());
        let mut moved = old.clone();
        moved["spec"]["clusterIP"] = "10.0.0.2".into();
        let moved = updated(&Service, "", moved, &old);
        assert_eq!(
            errors_of_update(&Service, "", &moved, &old),
            ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
        );
    }

    #[test]
    fn the_table_shows_addresses_and_ports() {
        let mut made = service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]}));
        let row = |service: &Value| {
            let cells = Service.cells(service, Timestamp::UNIX_EPOCH);
            (cells[2].clone(), cells[3].clone())
        };
        assert_eq!(row(&made), ("<pending>".into(), "80:30001/TCP,53/UDP".into()));
        made["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3.4"}]);
        assert_eq!(row(&made).0, "1.2.3.4");
    }
}
