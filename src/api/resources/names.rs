//! The formats that names, labels, ports and their like must have, each as a list of faults in
//! upstream's words (apimachinery `util/validation`).
//!
//! Why by hand and not by regular expression: these run for every label of every write; the
//! expressions only stand in the texts.

use std::net::IpAddr;

use crate::object::selector::{is_dns_label, is_dns_subdomain, is_label_value};

/// A check of a text that lists its faults.
pub(super) type Format = fn(&str) -> Vec<String>;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn alnum_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `part` without regard to its length.
fn is_label_shape(part: &str) -> bool {
    let bytes = part.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last))
        if alnum_lower(*first) && alnum_lower(*last))
        && bytes.iter().all(|byte| alnum_lower(*byte) || *byte == b'-')
}

fn is_subdomain_shape(text: &str) -> bool {
    text.split('.').all(is_label_shape)
}

/// RFC 1123 label.
pub(super) fn dns_label(text: &str) -> Vec<String> {
    if is_dns_label(text) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if text.len() > LABEL_MAX {
        faults.push(too_long(LABEL_MAX));
    }
    if !is_label_shape(text) {
        faults.push(if is_subdomain_shape(text) {
            "must not contain dots".to_owned()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned()
        });
    }
    faults
}

/// RFC 1123 subdomain.
pub(super) fn dns_subdomain(text: &str) -> Vec<String> {
    subdomain_faults(text, "characters")
}

fn subdomain_faults(text: &str, unit: &str) -> Vec<String> {
    if is_dns_subdomain(text) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        faults.push(format!("must be no more than {SUBDOMAIN_MAX} {unit}"));
    }
    if !is_subdomain_shape(text) {
        faults.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    faults
}

/// A subdomain whose labels may hold underscores (DNS search paths).
pub(super) fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let part_is_good = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        is_label_shape(&part.replace('_', "-"))
    };
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        faults.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(part_is_good) {
        faults.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '_', '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    faults
}

/// RFC 1035 label: a letter first.
pub(super) fn dns_1035_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_MAX {
        faults.push(too_long(LABEL_MAX));
    }
    if !is_label_shape(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
             with an alphabetic character, and end with an alphanumeric character (e.g. \
             'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    faults
}

/// `*.` and a subdomain.
pub(super) fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        faults.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain_shape) {
        faults.push(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
             subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and \
             end with an alphanumeric character (e.g. '*.example.com', regex used for validation \
             is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    faults
}

const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
                         and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  \
                         or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A label's key: `[prefix/]name`.
pub(super) fn qualified_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if third.is_some() {
        faults.push(format!(
            "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. \
             'example.com/MyName')"
        ));
        return faults;
    }
    let name = second.unwrap_or(first);
    if second.is_some() {
        if first.is_empty() {
            faults.push("prefix part must be non-empty".to_owned());
        } else {
            let prefix = subdomain_faults(first, "bytes").into_iter();
            faults.extend(prefix.map(|fault| format!("prefix part {fault}")));
        }
    }
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        faults.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_name_part(name) {
        faults.push(format!("name part {NAME_PART}"));
    }
    faults
}

/// A label's value.
pub(super) fn label_value(text: &str) -> Vec<String> {
    if is_label_value(text) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if text.len() > LABEL_MAX {
        faults.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !is_name_part(text) {
        faults.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  \
             or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    faults
}

/// The name of a port.
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault_if = |wrong: bool, fault: &str| {
        if wrong {
            faults.push(fault.to_owned());
        }
    };
    let known = |byte: u8| alnum_lower(byte) || byte == b'-';
    fault_if(text.len() > 15, "must be no more than 15 characters");
    fault_if(
        text.is_empty() || !text.bytes().all(known),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    fault_if(
        !text.bytes().any(|byte| byte.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    fault_if(text.contains("--"), "must not contain consecutive hyphens");
    fault_if(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    faults
}

fn dot_faults(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        faults.push(too_long(SUBDOMAIN_MAX));
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(known) {
        faults.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    faults.extend(dot_faults(text));
    faults
}

/// The name of an environment variable: any printable ASCII but `=`.
pub(super) fn env_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.is_empty() {
        faults.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters \
             other than '='"
                .to_owned(),
        );
    }
    faults
}

/// The name of an HTTP header.
pub(super) fn header_name(text: &str) -> Vec<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !text.is_empty() && text.bytes().all(known) {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
         'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            .to_owned(),
    ]
}

/// An IP address.
pub(super) fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
        Err(_) if without_leading_zeros(text).parse::<IpAddr>().is_ok() => {
            vec!["must not have leading 0s".to_owned()]
        }
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

fn without_leading_zeros(text: &str) -> String {
    let octet = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(octet).collect::<Vec<_>>().join(".")
}

/// Network and prefix length of a CIDR.
pub(super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| plain)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// The address with the bits beyond the prefix cleared.
pub(super) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// A CIDR whose bits beyond the prefix are zero.
pub(super) fn cidr(text: &str) -> Vec<String> {
    let Some((address, length)) = parse_cidr(text) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let network = masked(address, length);
    if network == address {
        return Vec::new();
    }
    vec!["must not have bits set beyond the prefix length".to_owned()]
}

/// A port's number.
pub(super) fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65_535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

/// A percentage, as in "25%".
pub(super) fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    vec![
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
         or '93%', regex used for validation is '[0-9]+%')"
            .to_owned(),
    ]
}

/// A name that may stand as one segment of a URL's path (RBAC objects).
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|illegal| text.contains(*illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// The first fault of a name.
pub(super) fn first(format: Format, name: &str) -> Option<String> {
    format(name).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_have_no_fault_and_bad_ones_upstreams() {
        let good: [(Format, &str); 12] = [
            (dns_label, "a-1"),
            (dns_subdomain, "a.b-c.1"),
            (dns_subdomain_with_underscore, "_tcp.a_b"),
            (dns_1035_label, "a1"),
            (wildcard_subdomain, "*.a.b"),
            (qualified_name, "example.com/My_Name.1"),
            (label_value, ""),
            (port_name, "http-1"),
            (config_key, "..a".trim_start_matches('.')),
            (env_name, "a b-c"),
            (ip, "fd00::1"),
            (cidr, "10.0.0.0/8"),
        ];
        for (format, text) in good {
            assert_eq!(format(text), Vec::<String>::new(), "{text}");
        }
        let bad: [(Format, &str, &str); 11] = [
            (dns_label, "a.b", "must not contain dots"),
            (dns_label, "A", "a lowercase RFC 1123 label must consist"),
            (dns_subdomain, "a..b", "a lowercase RFC 1123 subdomain must"),
            (dns_1035_label, "1a", "a DNS-1035 label must"),
            (qualified_name, "/a", "prefix part must be non-empty"),
            (qualified_name, "a/b/c", "a valid label key must consist"),
            (label_value, "-a", "a valid label must be an empty string"),
            (port_name, "80", "must contain at least one letter (a-z)"),
            (config_key, "..a", "must not start with '..'"),
            (ip, "010.0.0.1", "must not have leading 0s"),
            (cidr, "10.0.0.1/8", "must not have bits set beyond"),
        ];
        for (format, text, fault) in bad {
            let faults = format(text);
            assert!(faults.iter().any(|found| found.starts_with(fault)), "{text}: {faults:?}");
        }
    }
}
