//! EndpointSlice.
//!
//! Why bounded: a slice is sent whole to every node whenever one of its endpoints changes.

use std::net::IpAddr;

use super::super::columns::{AGE, Cell, col, list, texts};
use super::super::core::endpoints::endpoint_ip;
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{fill, list_mut};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::{Value, meta};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
/// How many ports and addresses the table shows.
const SHOWN_MAX: usize = 3;

/// The EndpointSlice's strategy.
pub(in super::super) const ENDPOINT_SLICE: Declared = Declared {
    defaults,
    rules: &[
        ("addressType", Rule::OneOf(&["FQDN", "IPv4", "IPv6"])),
        ("ports", Rule::Check(ports)),
        ("endpoints", Rule::Check(many_endpoints)),
        ("", Rule::Check(endpoints)),
    ],
    immutable: &["addressType"],
    generation: true,
    columns: &[col("AddressType"), col("Ports"), col("Endpoints"), AGE],
    cells: &[
        Cell::Text(&["addressType"]),
        Cell::Made(|object| shown(list(object, &["ports"]).iter().map(port_text).collect())),
        Cell::Made(|object| {
            let endpoints = list(object, &["endpoints"]).iter();
            let addresses = endpoints.flat_map(|one| texts(one, &["addresses"]));
            shown(addresses.map(str::to_owned).collect())
        }),
        Cell::Age,
    ],
    ..Declared::NONE
};

fn defaults(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for port in list_mut(map, "ports").filter_map(Value::as_object_mut) {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

fn port_text(port: &Value) -> String {
    match port.get("port").and_then(Value::as_i64) {
        Some(number) => number.to_string(),
        None => port.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    }
}

fn shown(texts: Vec<String>) -> Value {
    match texts.len() {
        0 => "<unset>".into(),
        count if count > SHOWN_MAX => {
            let more = count - SHOWN_MAX;
            format!("{} + {more} more...", texts[..SHOWN_MAX].join(",")).into()
        }
        _ => texts.join(",").into(),
    }
}

fn ports(list: &Field, out: &mut Errors) {
    if list.len() > PORTS_MAX {
        out.push(list.too_many(PORTS_MAX));
    }
    let mut seen: Vec<String> = Vec::new();
    for port in list.items() {
        let name = port.get("name");
        validate::optional_format(&name, names::dns_label, out);
        if seen.iter().any(|other| other == name.text()) {
            out.push(name.duplicate());
        }
        seen.push(name.text().to_owned());
        validate::protocol(&port.get("protocol"), out);
        validate::optional_format(&port.get("appProtocol"), names::qualified_name, out);
    }
}

fn many_endpoints(list: &Field, out: &mut Errors) {
    if list.len() > ENDPOINTS_MAX {
        out.push(list.too_many(ENDPOINTS_MAX));
    }
}

fn endpoints(root: &Field, out: &mut Errors) {
    let family = meta::text(root.value(), &["addressType"]);
    for endpoint in root.get("endpoints").items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            out.push(addresses.required("must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            out.push(addresses.too_many(ADDRESSES_MAX));
        }
        addresses.items().for_each(|address| check_address(&addresses, &address, family, out));
        validate::optional_format(&endpoint.get("nodeName"), names::dns_subdomain, out);
        validate::labels(&endpoint.get("deprecatedTopology"), out);
        let host = endpoint.get("hostname");
        if host.is_set() {
            validate::format(&host, names::dns_label, out);
        }
        let hints = endpoint.get("hints");
        for (list, format) in [
            ("forZones", names::qualified_name as names::Format),
            ("forNodes", names::dns_subdomain),
        ] {
            let list = hints.get(list);
            if list.len() > HINTS_MAX {
                out.push(list.too_many(HINTS_MAX));
            }
            list.items().for_each(|hint| validate::format(&hint.get("name"), format, out));
        }
    }
}

fn check_address(list: &Field, address: &Field, family: &str, out: &mut Errors) {
    if family == "FQDN" {
        let text = address.text();
        validate::format(address, names::dns_subdomain, out);
        if !text.trim_end_matches('.').contains('.') {
            let why = "should be a domain with at least two segments separated by dots";
            out.push(address.invalid(why));
        }
        return;
    }
    let before = out.len();
    validate::format(address, names::ip, out);
    if out.len() > before {
        return;
    }
    let is_v4 = address.text().parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    if is_v4 != (family == "IPv4") {
        let why = format!("must be an {family} address");
        out.push(list.invalid_as(address.text(), why));
    }
    endpoint_ip(address, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};
    use serde_json::json;

    #[test]
    fn addresses_fit_their_type() {
        let slice = created(
            &ENDPOINT_SLICE,
            json!({"addressType": "IPv4", "ports": [{"port": 80}],
                   "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]}),
        );
        assert_eq!(slice["ports"][0], json!({"port": 80, "name": "", "protocol": "TCP"}));
        assert_eq!(
            errors_of_create(&ENDPOINT_SLICE, &slice),
            ["endpoints[1].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"]
        );
    }
}
