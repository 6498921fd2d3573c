//! Checks that many kinds share: required and allowed values, labels, selectors, numbers,
//! quantities, ports, what may not change.
//!
//! Why functions over [`Field`]: the same fault has the same text whatever the kind.

use super::field::{Errors, Field};
use super::names::{self, Format};
use crate::object::quantity::Quantity;
use crate::object::selector::Selector;
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// Upstream's text for a negative number.
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's text for a number that must be 1 or more.
pub(super) const NOT_POSITIVE: &str = "must be greater than zero";
/// Upstream's text for a change of what may not change.
pub(super) const IMMUTABLE: &str = "field is immutable";
/// The protocols a port may have.
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A text of a certain format; the empty text is checked too.
pub(super) fn format(field: &Field, format: Format, out: &mut Errors) {
    for fault in format(field.text()) {
        out.push(field.invalid_as(field.text(), fault));
    }
}

/// As [`format`], where there is a text.
pub(super) fn optional_format(field: &Field, check: Format, out: &mut Errors) {
    if !field.text().is_empty() {
        format(field, check, out);
    }
}

/// A text that must be there, of a certain format.
pub(super) fn required_format(field: &Field, check: Format, out: &mut Errors) {
    if field.text().is_empty() {
        out.push(field.required(""));
    } else {
        format(field, check, out);
    }
}

/// A value that must be there.
pub(super) fn required(field: &Field, out: &mut Errors) {
    if field.is_empty() {
        out.push(field.required(""));
    }
}

/// A text that must be there and be one of a list.
pub(super) fn one_of(field: &Field, allowed: &[&str], out: &mut Errors) {
    if field.text().is_empty() {
        out.push(field.required(""));
    } else {
        optional_one_of(field, allowed, out);
    }
}

/// A text that, where it is set, must be one of a list.
pub(super) fn optional_one_of(field: &Field, allowed: &[&str], out: &mut Errors) {
    if field.is_set() && !allowed.contains(&field.text()) {
        out.push(field.not_supported(allowed));
    }
}

/// A number that may not be negative.
pub(super) fn non_negative(field: &Field, out: &mut Errors) {
    if field.int().is_some_and(|number| number < 0) {
        out.push(field.invalid(NEGATIVE));
    }
}

/// As [`non_negative`], for some members of a map.
pub(super) fn all_non_negative(of: &Field, names: &[&str], out: &mut Errors) {
    for name in names {
        non_negative(&of.get(name), out);
    }
}

/// A number within bounds, both inclusive.
pub(super) fn in_range(field: &Field, low: i64, high: i64, out: &mut Errors) {
    if field.int().is_some_and(|number| number < low || number > high) {
        out.push(field.invalid(format!("must be between {low} and {high}, inclusive")));
    }
}

/// A port's number.
pub(super) fn port_number(field: &Field, out: &mut Errors) {
    if let Some(fault) = names::port_number(field.int().unwrap_or(0)) {
        out.push(field.invalid_as(field.int().unwrap_or(0), fault));
    }
}

/// A port's number or name.
pub(super) fn port_number_or_name(field: &Field, out: &mut Errors) {
    if field.value().is_string() {
        format(field, names::port_name, out);
    } else {
        port_number(field, out);
    }
}

/// A port's protocol.
pub(super) fn protocol(field: &Field, out: &mut Errors) {
    one_of(field, PROTOCOLS, out);
}

/// A map of labels (metadata.labels, a node selector, …).
pub(super) fn labels(field: &Field, out: &mut Errors) {
    for (key, value) in field.entries() {
        for fault in names::qualified_name(key) {
            out.push(field.invalid_as(key, fault));
        }
        for fault in names::label_value(value.text()) {
            out.push(field.invalid_as(value.text(), fault));
        }
    }
}

/// A map of annotations.
pub(super) fn annotations(field: &Field, out: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in field.entries() {
        for fault in names::qualified_name(&key.to_lowercase()) {
            out.push(field.invalid_as(key, fault));
        }
        bytes += key.len() + value.text().len();
    }
    let max = crate::stdx::limits::ANNOTATIONS_BYTES_MAX;
    if bytes > max {
        out.push(field.too_long(max));
    }
}

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(field: &Field, out: &mut Errors) {
    labels(&field.get("matchLabels"), out);
    let expressions = field.get("matchExpressions");
    for expression in expressions.items() {
        let values = expression.get("values");
        let operator = expression.get("operator");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                out.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                out.push(values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(operator.invalid_as(other, "not a valid selector operator")),
        }
        format(&expression.get("key"), names::qualified_name, out);
        for value in values.items() {
            format(&value, names::label_value, out);
        }
    }
}

/// Whether a LabelSelector puts no condition.
pub(super) fn selects_everything(selector: &Field) -> bool {
    selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty()
}

/// The labels of a template must match the selector that is to find its pods.
pub(super) fn selector_matches(selector: &Field, template: &Field, out: &mut Errors) {
    let Ok(parsed) = Selector::from_label_selector(selector.value()) else { return };
    template_matches(&parsed, template, out);
}

/// As [`selector_matches`], for a selector that is read already.
pub(super) fn template_matches(selector: &Selector, template: &Field, out: &mut Errors) {
    let metadata = template.get("metadata");
    let labels = metadata.get("labels");
    if !selector.is_everything() && !selector.matches(labels.value().as_object()) {
        out.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// A quantity's text, read; `None` where it is missing or malformed (the decoder refuses those).
pub(super) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// A quantity that may not be negative.
pub(super) fn quantity_non_negative(field: &Field, out: &mut Errors) {
    if let Some(quantity) = quantity(field.value()).filter(Quantity::is_negative) {
        out.push(field.invalid_as(quantity.to_string(), NEGATIVE));
    }
}

/// A resource's amount: not negative, and whole where fractions mean nothing.
pub(super) fn resource_amount(resource: &str, field: &Field, out: &mut Errors) {
    quantity_non_negative(field, out);
    let Some(amount) = quantity(field.value()) else { return };
    if is_integer_resource(resource) && !amount.is_whole() {
        out.push(field.invalid_as(amount.to_string(), "must be an integer"));
    }
}

/// Pods, services and their like, and every extended resource, come in whole numbers.
fn is_integer_resource(name: &str) -> bool {
    matches!(
        name,
        "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "pods"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended_resource(name)
}

/// A resource outside Kubernetes' own domains, as in "nvidia.com/gpu".
pub(super) fn is_extended_resource(name: &str) -> bool {
    !is_native_resource(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A resource of Kubernetes' own.
pub(super) fn is_native_resource(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A value that may not change.
pub(super) fn immutable(new: &Field, old: &Field, out: &mut Errors) {
    if !same(new.value(), old.value()) {
        out.push(new.invalid(IMMUTABLE));
    }
}

/// As [`immutable`], for the values at a path below two objects.
pub(super) fn immutable_at(new: &Value, old: &Value, path: &[&str], out: &mut Errors) {
    let (new, old) =
        (meta::at(new, path).unwrap_or(&Value::Null), meta::at(old, path).unwrap_or(&Value::Null));
    if !same(new, old) {
        out.push(FieldError::invalid(path.join("."), new.clone(), IMMUTABLE));
    }
}

/// Equality as Go's structs see it: a missing value equals null and the empty list or map, and
/// quantities compare by amount.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys().filter(|key| !left.contains_key(*key)));
            keys.into_iter().all(|key| {
                same(left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        _ => a == b || (nothing(a) && nothing(b)),
    }
}

/// An absolute or percent number: not negative, and a percentage where it is a text.
pub(super) fn int_or_percent(field: &Field, out: &mut Errors) {
    if field.value().is_string() {
        format(field, names::percent, out);
    } else {
        non_negative(field, out);
    }
}

/// A percentage may not exceed 100.
pub(super) fn at_most_100_percent(field: &Field, out: &mut Errors) {
    if percent_of(field).is_some_and(|percent| percent > 100) {
        out.push(field.invalid("must not be greater than 100%"));
    }
}

/// The number before the percent sign.
pub(super) fn percent_of(field: &Field) -> Option<i64> {
    field.text().strip_suffix('%')?.parse().ok()
}

/// The number, absolute or percent; 0 where there is none.
pub(super) fn int_or_percent_number(field: &Field) -> i64 {
    percent_of(field).or(field.int()).unwrap_or(0)
}

/// A name with a domain before it, as in "acme.io/foo".
pub(super) fn domain_path(field: &Field, out: &mut Errors) {
    let text = field.text();
    let (domain, path) = text.split_once('/').unwrap_or((text, ""));
    if text.is_empty() {
        out.push(field.required(""));
        return;
    }
    if path.is_empty() || domain.is_empty() {
        out.push(field.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    }
    for fault in names::dns_subdomain(domain) {
        out.push(field.invalid_as(domain, fault));
    }
}

/// A path below a volume: relative and without "..".
pub(super) fn descending_path(field: &Field, out: &mut Errors) {
    if field.text().starts_with('/') {
        out.push(field.invalid("must be a relative path"));
    }
    no_backsteps(field, out);
}

/// A path without ".." as an element.
pub(super) fn no_backsteps(field: &Field, out: &mut Errors) {
    if field.text().split('/').any(|part| part == "..") {
        out.push(field.invalid("must not contain '..'"));
    }
}

/// As [`descending_path`], and not starting with "..", which is kept for the atomic writer.
pub(super) fn unreserved_path(field: &Field, out: &mut Errors) {
    descending_path(field, out);
    if field.text().starts_with("..") && !field.text().starts_with("../") {
        out.push(field.invalid("must not start with '..'"));
    }
}

/// A file's mode.
pub(super) fn file_mode(field: &Field, out: &mut Errors) {
    if field.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        out.push(field.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equality_is_gos() {
        assert!(same(&json!({"a": null, "b": [1]}), &json!({"b": [1], "c": {}})));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn selectors_are_checked_in_upstreams_words() {
        let object = json!({"selector": {
            "matchLabels": {"a b": "x"},
            "matchExpressions": [{"key": "k", "operator": "In"}, {"key": "k", "operator": "Is"}],
        }});
        let (root, mut out) = (Field::root(&object), Errors::new());
        label_selector(&root.get("selector"), &mut out);
        let texts: Vec<String> = out.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("selector.matchLabels: Invalid value: \"a b\": name part"));
        assert_eq!(
            texts[1],
            "selector.matchExpressions[0].values: Required value: must be specified when \
             `operator` is 'In' or 'NotIn'"
        );
        assert_eq!(
            texts[2],
            "selector.matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector \
             operator"
        );
    }
}
