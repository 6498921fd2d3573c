//! IPAddress: the name is the address, so that two objects cannot hold the same one.

use std::net::IpAddr;

use super::super::columns::{AGE, Cell, col};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;
use super::super::{names, validate};
use crate::object::{Value, meta};

/// The IPAddress's strategy.
pub(in super::super) const IP_ADDRESS: Declared = Declared {
    name: canonical_ip,
    rules: &[("spec", Rule::Check(check))],
    immutable: &["spec.parentRef"],
    columns: &[col("ParentRef"), AGE],
    cells: &[Cell::Made(parent), Cell::Age],
    ..Declared::NONE
};

fn canonical_ip(text: &str) -> Vec<String> {
    let faults = names::ip(text);
    match text.parse::<IpAddr>() {
        Ok(address) if faults.is_empty() && address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        _ => faults,
    }
}

fn check(spec: &Field, out: &mut Errors) {
    let parent = spec.get("parentRef");
    if !parent.is_set() {
        out.push(parent.required(""));
        return;
    }
    validate::optional_format(&parent.get("group"), names::dns_subdomain, out);
    validate::required_format(&parent.get("resource"), names::path_segment, out);
    validate::required_format(&parent.get("name"), names::path_segment, out);
    validate::optional_format(&parent.get("namespace"), names::path_segment, out);
}

fn parent(object: &Value) -> Value {
    let Some(parent) = meta::at(object, &["spec", "parentRef"]) else { return "<none>".into() };
    let text = |name: &str| meta::text(parent, &[name]);
    let mut shown = match text("group") {
        "" => text("resource").to_lowercase(),
        group => format!("{}.{group}", text("resource")).to_lowercase(),
    };
    for part in [text("namespace"), text("name")].into_iter().filter(|part| !part.is_empty()) {
        shown.push('/');
        shown.push_str(part);
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_canonical_addresses() {
        assert_eq!(canonical_ip("10.0.0.1"), Vec::<String>::new());
        assert_eq!(canonical_ip("fd00:0::1"), ["must be in canonical form (\"fd00::1\")"]);
        assert!(canonical_ip("x")[0].starts_with("must be a valid IP address"));
    }
}
