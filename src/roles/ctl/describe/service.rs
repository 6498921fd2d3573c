//! A Service with its endpoints.
//!
//! Why the endpoints: a Service without any is the usual reason to look.

use super::page::{Page, items, number, or_none, plain, text, texts};
use crate::client::ListOptions;
use crate::object::{Value, meta};
use crate::roles::ctl::output::pairs;
use crate::roles::ctl::session::Session;

/// Endpoints of a port that are shown before "more", as kubectl has it.
const ENDPOINTS_SHOWN: usize = 3;

/// A Service.
pub async fn describe(session: &Session, object: &Value) -> anyhow::Result<Page> {
    let kind = session.kind("endpointslices.discovery.k8s.io").await?;
    let options = ListOptions {
        label_selector: format!("kubernetes.io/service-name={}", meta::name(object)),
        ..ListOptions::default()
    };
    let target = session.target(kind, meta::namespace(object), "");
    let (slices, _) = session.list(kind, &target, &options).await?;
    let spec = &object["spec"];
    let mut page = Page::default();
    page.field(0, "Name", meta::name(object));
    page.field(0, "Namespace", meta::namespace(object));
    page.pairs("Labels", meta::at(object, &["metadata", "labels"]), "=");
    page.annotations(meta::at(object, &["metadata", "annotations"]));
    page.field(0, "Selector", pairs(spec.get("selector")));
    page.field(0, "Type", text(spec, "type"));
    page.given(0, "IP Family Policy", text(spec, "ipFamilyPolicy"));
    page.field(0, "IP Families", or_none(&texts(spec, &["ipFamilies"]).join(",")));
    page.field(0, "IP", text(spec, "clusterIP"));
    page.field(0, "IPs", or_none(&texts(spec, &["clusterIPs"]).join(",")));
    page.given(0, "External IPs", &texts(spec, &["externalIPs"]).join(","));
    page.given(0, "Desired LoadBalancer IP", text(spec, "loadBalancerIP"));
    page.given(0, "External Name", text(spec, "externalName"));
    let ingress = items(object, &["status", "loadBalancer", "ingress"]);
    let ingress: Vec<&str> = ingress
        .map(|one| match text(one, "ip") {
            "" => text(one, "hostname"),
            ip => ip,
        })
        .collect();
    page.given(0, "LoadBalancer Ingress", &ingress.join(", "));
    for port in items(spec, &["ports"]) {
        let name = match text(port, "name") {
            "" => "<unset>",
            name => name,
        };
        let protocol = text(port, "protocol");
        page.put(0, &format!("Port:\t{name}\t{}/{protocol}", number(port, &["port"])));
        page.field(0, "TargetPort", format!("{}/{protocol}", plain(&port["targetPort"])));
        page.given(0, "AppProtocol", text(port, "appProtocol"));
        let node_port = number(port, &["nodePort"]);
        if node_port != 0 {
            page.put(0, &format!("NodePort:\t{name}\t{node_port}/{protocol}"));
        }
        page.field(0, "Endpoints", endpoints(&slices, text(port, "name")));
    }
    page.field(0, "Session Affinity", text(spec, "sessionAffinity"));
    page.given(0, "External Traffic Policy", text(spec, "externalTrafficPolicy"));
    page.given(0, "Internal Traffic Policy", text(spec, "internalTrafficPolicy"));
    if number(spec, &["healthCheckNodePort"]) != 0 {
        page.field(0, "HealthCheck NodePort", number(spec, &["healthCheckNodePort"]));
    }
    let ranges = texts(spec, &["loadBalancerSourceRanges"]).join(",");
    page.given(0, "LoadBalancer Source Ranges", &ranges);
    page.given(0, "Traffic Distribution", text(spec, "trafficDistribution"));
    Ok(page)
}

/// The ready endpoints of a port.
fn endpoints(slices: &[Value], port: &str) -> String {
    let mut shown = Vec::new();
    for slice in slices {
        for of in items(slice, &["ports"]).filter(|of| text(of, "name") == port) {
            for endpoint in items(slice, &["endpoints"]) {
                let ready = meta::at(endpoint, &["conditions", "ready"]).and_then(Value::as_bool);
                if ready == Some(false) {
                    continue;
                }
                let address = texts(endpoint, &["addresses"]);
                let Some(address) = address.first() else { continue };
                let number = plain(&of["port"]);
                shown.push(match address.contains(':') {
                    true => format!("[{address}]:{number}"),
                    false => format!("{address}:{number}"),
                });
            }
        }
    }
    let more = shown.len().saturating_sub(ENDPOINTS_SHOWN);
    shown.truncate(ENDPOINTS_SHOWN);
    let text = shown.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_port_are_shown() {
        let slice = json!({"ports": [{"name": "http", "port": 80}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["fd00::1"]}]});
        let slices = [slice];
        assert_eq!(endpoints(&slices, "http"), "10.0.0.1:80,[fd00::1]:80");
        assert_eq!(endpoints(&slices, "other"), "");
    }
}
