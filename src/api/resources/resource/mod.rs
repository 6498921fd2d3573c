//! The resource.k8s.io group (dynamic resource allocation).

pub(super) mod deviceclass;
pub(super) mod resourceclaim;
pub(super) mod resourceclaimtemplate;
pub(super) mod resourceslice;

use super::field::{Errors, Field};
use super::fill::{fill, list_mut};
use super::{names, validate};
use crate::object::{Map, Value};

/// Defaults of a claim's device requests.
fn default_claim(spec: &mut Map) {
    let Some(devices) = spec.get_mut("devices").and_then(Value::as_object_mut) else { return };
    for request in list_mut(devices, "requests").filter_map(Value::as_object_mut) {
        if let Some(exactly) = request.get_mut("exactly").and_then(Value::as_object_mut) {
            default_count(exactly);
        }
        list_mut(request, "firstAvailable")
            .filter_map(Value::as_object_mut)
            .for_each(default_count);
    }
}

fn default_count(request: &mut Map) {
    fill(request, "allocationMode", "ExactCount");
    if request.get("allocationMode").is_some_and(|mode| mode == "ExactCount") {
        fill(request, "count", 1);
    }
}

/// A claim's spec, also inside a template.
fn check_claim(spec: &Field, out: &mut Errors) {
    let requests = spec.get("devices");
    let requests = requests.get("requests");
    for (at, request) in requests.items().enumerate() {
        let (name, exactly) = (request.get("name"), request.get("exactly"));
        let first = request.get("firstAvailable");
        validate::required_format(&name, names::dns_label, out);
        if requests.items().take(at).any(|other| other.get("name").text() == name.text()) {
            out.push(name.duplicate());
        }
        let shown = request.value().clone();
        match (exactly.is_set(), first.is_set()) {
            (true, true) => out.push(request.invalid_as(
                shown,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields \
                 are set",
            )),
            (false, false) => out
                .push(request.required("exactly one of `exactly` or `firstAvailable` is required")),
            (true, false) => check_request(&exactly, out),
            (false, true) => first.items().for_each(|one| check_request(&one, out)),
        }
    }
}

fn check_request(request: &Field, out: &mut Errors) {
    let (class, mode) = (request.get("deviceClassName"), request.get("allocationMode"));
    validate::required_format(&class, names::dns_subdomain, out);
    validate::one_of(&mode, &["All", "ExactCount"], out);
    let count = request.get("count");
    if mode.text() == "ExactCount" && count.int().unwrap_or(0) <= 0 {
        out.push(count.invalid(validate::NOT_POSITIVE));
    }
}
