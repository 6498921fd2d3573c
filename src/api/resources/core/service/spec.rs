//! Validation of a Service's spec.
//!
//! Why apart: the rules hang on the type, and each speaks of another field.

use super::super::super::field::{Errors, Field};
use super::super::super::{names, validate};
use super::super::endpoints::endpoint_ip;
use super::{is_external, needs_health_port, text, value};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
/// A day, the longest that client affinity lasts.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn is_headless(service: &Value) -> bool {
    value(service, "clusterIPs")
        .as_array()
        .is_some_and(|ips| matches!(ips.as_slice(), [one] if one == "None"))
}

/// What a Service must be like whenever it is written.
pub(super) fn check(service: &Value, old: Option<&Value>, out: &mut Errors) {
    let root = Field::root(service);
    let spec = root.get("spec");
    let metadata = root.get("metadata");
    topology_annotations(&metadata.get("annotations"), out);
    let ports = spec.get("ports");
    let kind = spec.get("type");
    if ports.is_empty() && !is_headless(service) && kind.text() != "ExternalName" {
        out.push(ports.required(""));
    }
    by_type(&spec, service, out);
    each_port(&ports, out);
    validate::labels(&spec.get("selector"), out);
    affinity(&spec, out);
    if kind.text() != "ExternalName" {
        cluster_ips(&spec, service, old, out);
    }
    external_ips(&spec.get("externalIPs"), old, out);
    validate::one_of(&kind, TYPES, out);
    port_conflicts(&spec, out);
    load_balancer(&spec, &metadata.get("annotations"), out);
    traffic(&spec, service, out);
}

fn topology_annotations(annotations: &Field, out: &mut Errors) {
    let (hints, mode) = (annotations.key(HINTS), annotations.key(MODE));
    if hints.is_set() && mode.is_set() && hints.text() != mode.text() {
        out.push(mode.invalid(format!("must match annotations[{HINTS}] when both are specified")));
    }
}

fn by_type(spec: &Field, service: &Value, out: &mut Errors) {
    let ips = spec.get("clusterIPs");
    match spec.get("type").text() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(service) => {
            let why = format!("may not be set to 'None' for {kind} services");
            out.push(ips.index(0).invalid(why));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(name).is_empty() {
                    let why = "may not be set for ExternalName services";
                    out.push(spec.get(name).forbidden(why));
                }
            }
            let name = spec.get("externalName");
            let text = name.text().strip_suffix('.').unwrap_or(name.text());
            if text.is_empty() {
                out.push(name.required(""));
            }
            for fault in names::dns_subdomain(text).into_iter().filter(|_| !text.is_empty()) {
                out.push(name.invalid_as(text, fault));
            }
        }
        _ => {}
    }
}

fn each_port(ports: &Field, out: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        if ports.len() > 1 {
            validate::required_format(&name, names::dns_label, out);
        } else {
            validate::optional_format(&name, names::dns_label, out);
        }
        if !name.text().is_empty() && seen.contains(&name.text()) {
            out.push(name.duplicate());
        }
        seen.push(name.text());
        validate::port_number(&port.get("port"), out);
        validate::protocol(&port.get("protocol"), out);
        validate::port_number_or_name(&port.get("targetPort"), out);
        let protocol = port.get("appProtocol");
        if protocol.is_set() {
            validate::format(&protocol, names::qualified_name, out);
        }
    }
}

fn affinity(spec: &Field, out: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    validate::one_of(&affinity, &["ClientIP", "None"], out);
    if affinity.text() == "None" && config.is_set() {
        out.push(config.forbidden("must not be set when session affinity is None"));
    }
    if affinity.text() != "ClientIP" {
        return;
    }
    let client = config.get("clientIP");
    let seconds = client.get("timeoutSeconds");
    let missing = [&config, &client, &seconds].into_iter().find(|field| !field.is_set());
    if let Some(missing) = missing {
        out.push(missing.required("when session affinity type is ClientIP"));
    } else if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds.int().unwrap_or(0)) {
        let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        out.push(seconds.invalid(why));
    }
}

fn cluster_ips(spec: &Field, service: &Value, old: Option<&Value>, out: &mut Errors) {
    let (ip, ips) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    match (ip.text(), ips.items().next()) {
        ("", Some(_)) => {
            out.push(ips.invalid("must be empty when `clusterIP` is not specified"));
        }
        ("", None) => {}
        (_, None) => out.push(ips.required("")),
        (one, Some(first)) if first.text() != one => {
            out.push(ips.invalid("first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = spec.get("ipFamilies");
    for (at, family) in families.items().enumerate() {
        if !FAMILIES.contains(&family.text()) {
            out.push(family.not_supported(FAMILIES));
        }
        if families.items().take(at).any(|other| other.text() == family.text()) {
            out.push(family.duplicate());
        }
    }
    validate::optional_one_of(&spec.get("ipFamilyPolicy"), FAMILY_POLICIES, out);
    let before = out.len();
    let known = old.map_or(&Value::Null, |old| value(old, "clusterIPs"));
    for (at, one) in ips.items().enumerate() {
        if at == 0 && one.text() == "None" {
            if ips.len() > 1 {
                out.push(ips.invalid("'None' must be the first and only value"));
            }
        } else if !known.as_array().is_some_and(|known| known.contains(one.value())) {
            validate::format(&one, names::ip, out);
        }
    }
    let good = out.len() == before;
    if ips.len() > 2 {
        out.push(ips.invalid("may only hold up to 2 values"));
    }
    if !good || is_headless(service) {
        return;
    }
    let is_v6 = |ip: &Field| ip.text().contains(':');
    if ips.len() > 1 && is_v6(&ips.index(0)) == is_v6(&ips.index(1)) {
        out.push(ips.invalid("may specify no more than one IP for each IP family"));
    }
    for ((at, one), family) in ips.items().enumerate().zip(families.items()) {
        if (family.text() == "IPv6") != is_v6(&one) {
            let family = family.text();
            out.push(
                one.invalid(format!(
                    "expected an {family} value as indicated by `ipFamilies[{at}]`"
                )),
            );
        }
    }
}

fn external_ips(list: &Field, old: Option<&Value>, out: &mut Errors) {
    let known = old.map_or(&Value::Null, |old| value(old, "externalIPs"));
    for ip in list.items() {
        let before = out.len();
        if !known.as_array().is_some_and(|known| known.contains(ip.value())) {
            validate::format(&ip, names::ip, out);
        }
        if out.len() == before {
            endpoint_ip(&ip, out);
        }
    }
}

fn port_conflicts(spec: &Field, out: &mut Errors) {
    let ports = spec.get("ports");
    let (mut nodes, mut seen): (Vec<(&str, i64)>, Vec<(&str, i64)>) = (Vec::new(), Vec::new());
    for port in ports.items() {
        let (protocol, node) = (port.get("protocol").text(), port.get("nodePort"));
        let Some(number) = node.int().filter(|number| *number != 0) else { continue };
        if spec.get("type").text() == "ClusterIP" {
            out.push(node.forbidden("may not be used when `type` is 'ClusterIP'"));
        }
        if nodes.contains(&(protocol, number)) {
            out.push(node.duplicate());
        }
        nodes.push((protocol, number));
    }
    for port in ports.items() {
        let (protocol, number) = (port.get("protocol").text(), port.get("port").int().unwrap_or(0));
        if seen.contains(&(protocol, number)) {
            let shown = serde_json::json!({ "protocol": protocol, "port": number });
            out.push(FieldError::duplicate(port.path(), shown));
        }
        seen.push((protocol, number));
    }
}

fn load_balancer(spec: &Field, annotations: &Field, out: &mut Errors) {
    let balanced = spec.get("type").text() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    let annotation = annotations.key(SOURCE_RANGES);
    if !ranges.is_empty() {
        // Upstream writes this path with a capital.
        let shown = spec.named("LoadBalancerSourceRanges", ranges.value());
        if !balanced {
            out.push(shown.forbidden(BALANCER_ONLY));
        }
        for range in shown.items() {
            for fault in names::cidr(range.text().trim()) {
                out.push(range.invalid_as(range.text().trim(), fault));
            }
        }
    } else if annotation.is_set() {
        if !balanced {
            out.push(annotation.forbidden(BALANCER_ONLY));
        }
        let text = annotation.text().trim();
        for range in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            for fault in names::cidr(range) {
                out.push(annotation.invalid_as(range, fault));
            }
        }
    }
    let (allocate, class) =
        (spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass"));
    if allocate.is_set() && !balanced {
        out.push(allocate.forbidden(BALANCER_ONLY));
    }
    if !allocate.is_set() && balanced {
        out.push(FieldError::required("allocateLoadBalancerNodePorts", ""));
    }
    if class.is_set() {
        if balanced {
            validate::format(&class, names::qualified_name, out);
        } else {
            out.push(class.forbidden(BALANCER_ONLY));
        }
    }
}

fn traffic(spec: &Field, service: &Value, out: &mut Errors) {
    let (external, internal) =
        (spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy"));
    if is_external(service) {
        validate::one_of(&external, POLICIES, out);
    } else if !external.text().is_empty() {
        out.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health = spec.get("healthCheckNodePort");
    let number = health.int().unwrap_or(0);
    if needs_health_port(service) {
        if number == 0 {
            out.push(health.required(""));
        } else {
            validate::port_number(&health, out);
        }
    } else if number != 0 {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        out.push(health.invalid(why));
    }
    if !internal.is_set() && spec.get("type").text() != "ExternalName" {
        out.push(internal.required(""));
    }
    validate::optional_one_of(&internal, POLICIES, out);
    validate::optional_one_of(&spec.get("trafficDistribution"), DISTRIBUTIONS, out);
}

/// What an update may not do to addresses, families, class and health port.
pub(super) fn check_update(new: &Value, old: &Value, out: &mut Errors) {
    let root = Field::root(new);
    let spec = root.get("spec");
    let named = |service: &Value| text(service, "type") == "ExternalName";
    if !named(new) && !named(old) {
        let (was, is) = (is_headless(old), is_headless(new));
        if !(was && is) {
            ips_stay(&spec, new, old, out);
        }
        if !was && !is {
            families_stay(&spec, new, old, out);
        }
    }
    let balanced = |service: &Value| text(service, "type") == "LoadBalancer";
    if balanced(new) && balanced(old) {
        let class = spec.get("loadBalancerClass");
        if !validate::same(class.value(), value(old, "loadBalancerClass")) {
            out.push(class.invalid("may not change once set"));
        }
    }
    let health = spec.get("healthCheckNodePort");
    if needs_health_port(new)
        && needs_health_port(old)
        && !validate::same(health.value(), value(old, "healthCheckNodePort"))
    {
        out.push(health.forbidden("field is immutable"));
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn single_stack(spec: &Field, what: &str, out: &mut Errors) {
    let policy = spec.get("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        out.push(policy.invalid(why));
    }
}

fn ips_stay(spec: &Field, new: &Value, old: &Value, out: &mut Errors) {
    let field = spec.get("clusterIPs");
    let (now, before) = (items(value(new, "clusterIPs")), items(value(old, "clusterIPs")));
    let changed = |at: usize, out: &mut Errors| {
        let shown = field.value().clone();
        out.push(field.index(at).invalid_as(shown, "may not change once set"));
    };
    if now.len() == before.len() {
        (0..now.len()).filter(|at| now[*at] != before[*at]).for_each(|at| changed(at, out));
        return;
    }
    if now.is_empty() {
        let shown = field.value().clone();
        out.push(field.index(0).invalid_as(shown, "primary clusterIP can not be unset"));
    } else if !before.is_empty() && now[0] != before[0] {
        changed(0, out);
    }
    if now.len() == 1 && before.len() > 1 {
        single_stack(spec, "clusterIP", out);
    }
}

fn families_stay(spec: &Field, new: &Value, old: &Value, out: &mut Errors) {
    let field = spec.get("ipFamilies");
    let (now, before) = (items(value(new, "ipFamilies")), items(value(old, "ipFamilies")));
    let differs = if now.len() == before.len() {
        now != before
    } else {
        !now.is_empty() && !before.is_empty() && now[0] != before[0]
    };
    if differs {
        let shown = field.value().clone();
        out.push(field.index(0).invalid_as(shown, "may not change once set"));
    }
    if now.len() < before.len() {
        if meta::at(new, &["spec", "clusterIPs"]).is_none_or(|ips| items(ips).is_empty()) {
            let shown = field.value().clone();
            out.push(field.index(0).invalid_as(shown, "primary ipFamily can not be unset"));
        }
        if now.len() == 1 {
            single_stack(spec, "ipFamily", out);
        }
    }
}
