//! Endpoints.
//!
//! Why still here beside EndpointSlice: old clients and mirrored slices read it.

use std::net::IpAddr;

use serde_json::json;

use super::super::columns::{AGE, Cell, col, list};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{fill, list_mut};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::{Value, meta};

/// How many addresses the table shows.
const SHOWN_MAX: usize = 3;

/// The Endpoints' strategy.
pub(in super::super) const ENDPOINTS: Declared = Declared {
    defaults,
    rules: &[("subsets[]", Rule::Check(subset))],
    create_on_update: true,
    columns: &[col("Endpoints"), AGE],
    cells: &[Cell::Made(|object| shown(object).into()), Cell::Age],
    ..Declared::NONE
};

fn defaults(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for subset in list_mut(map, "subsets") {
        let Some(subset) = subset.as_object_mut() else { continue };
        for port in list_mut(subset, "ports") {
            if let Some(port) = port.as_object_mut() {
                fill(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn subset(subset: &Field, out: &mut Errors) {
    let (ready, unready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
    if ready.is_empty() && unready.is_empty() {
        out.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
    }
    ready.items().chain(unready.items()).for_each(|address| {
        let ip = address.get("ip");
        validate::format(&ip, names::ip, out);
        validate::optional_format(&address.get("hostname"), names::dns_label, out);
        validate::optional_format(&address.get("nodeName"), names::dns_subdomain, out);
        endpoint_ip(&ip, out);
    });
    let ports = subset.get("ports");
    for port in ports.items() {
        let name = port.get("name");
        if ports.len() > 1 {
            validate::required_format(&name, names::dns_label, out);
        } else {
            validate::optional_format(&name, names::dns_label, out);
        }
        validate::port_number(&port.get("port"), out);
        validate::protocol(&port.get("protocol"), out);
        validate::optional_format(&port.get("appProtocol"), names::qualified_name, out);
    }
}

/// An address that traffic may be sent to.
pub(in super::super) fn endpoint_ip(ip: &Field, out: &mut Errors) {
    let Ok(address) = ip.text().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        let text = ip.text();
        out.push(ip.invalid(format!("may not be unspecified ({text})")));
    }
    if address.is_loopback() {
        out.push(ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if local {
        out.push(ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast {
        out.push(
            ip.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        );
    }
}

fn shown(object: &Value) -> String {
    let (mut texts, mut all) = (Vec::new(), 0);
    for subset in list(object, &["subsets"]) {
        let addresses = list(subset, &["addresses"]);
        let ports = list(subset, &["ports"]);
        let hosts = addresses.iter().map(|address| meta::text(address, &["ip"]));
        let pairs: Vec<String> = if ports.is_empty() {
            hosts.map(str::to_owned).collect()
        } else {
            let host = |ip: &str| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let number = |port: &Value| port.get("port").cloned().unwrap_or_default();
            ports
                .iter()
                .flat_map(|port| {
                    hosts.clone().map(move |ip| format!("{}:{}", host(ip), number(port)))
                })
                .collect()
        };
        all += pairs.len();
        texts.extend(pairs.into_iter().take(SHOWN_MAX - texts.len().min(SHOWN_MAX)));
    }
    match all {
        0 => "<none>".to_owned(),
        all if all > SHOWN_MAX => format!("{} + {} more...", texts.join(","), all - SHOWN_MAX),
        _ => texts.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};

    #[test]
    fn addresses_are_checked_and_shown() {
        let made = created(
            &ENDPOINTS,
            json!({"subsets": [{
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "ports": [{"port": 80}, {"name": "b", "port": 81}]}]}),
        );
        assert_eq!(made["subsets"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(shown(&made), "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...");
        assert_eq!(
            errors_of_create(&ENDPOINTS, &made),
            ["subsets[0].ports[0].name: Required value"]
        );
        let bad = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}, {}]});
        assert_eq!(
            errors_of_create(&ENDPOINTS, &bad),
            [
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the \
                 loopback range (127.0.0.0/8, ::1/128)",
                "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
            ]
        );
    }
}
