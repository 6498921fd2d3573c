//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use super::super::columns::{AGE, Cell, int};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::fill::{fill, list_mut};
use super::super::rules::Rule;
use super::super::{names, validate};
use super::{check_match, check_rule, default_match};
use crate::object::Value;

/// The strategy of a ValidatingWebhookConfiguration.
pub(in super::super) const VALIDATING: Declared = Declared {
    defaults: |object| defaults(object, false),
    rules: &[("webhooks", Rule::Check(webhooks))],
    generation: true,
    unconditional: false,
    columns: &[int("Webhooks"), AGE],
    cells: &[Cell::Count(&["webhooks"]), Cell::Age],
    ..Declared::NONE
};

/// The strategy of a MutatingWebhookConfiguration.
pub(in super::super) const MUTATING: Declared =
    Declared { defaults: |object| defaults(object, true), ..VALIDATING };

fn defaults(object: &mut Value, mutating: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for hook in list_mut(map, "webhooks").filter_map(Value::as_object_mut) {
        fill(hook, "failurePolicy", "Fail");
        fill(hook, "timeoutSeconds", 10);
        default_match(hook);
        if mutating {
            fill(hook, "reinvocationPolicy", "Never");
        }
        let client = hook.get_mut("clientConfig").and_then(|client| client.get_mut("service"));
        if let Some(service) = client.and_then(Value::as_object_mut) {
            fill(service, "port", 443);
        }
    }
}

fn webhooks(list: &Field, out: &mut Errors) {
    for (at, hook) in list.items().enumerate() {
        let name = hook.get("name");
        full_name(&name, out);
        hook.get("rules").items().for_each(|rule| check_rule(&rule, out));
        validate::optional_one_of(&hook.get("failurePolicy"), &["Fail", "Ignore"], out);
        check_match(&hook, out);
        let (effects, seconds) = (hook.get("sideEffects"), hook.get("timeoutSeconds"));
        if effects.is_set() {
            validate::optional_one_of(&effects, &["None", "NoneOnDryRun"], out);
        } else {
            out.push(effects.required("must specify one of None, NoneOnDryRun"));
        }
        if seconds.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            out.push(seconds.invalid("the timeout value must be between 1 and 30 seconds"));
        }
        let policies = ["IfNeeded", "Never"];
        validate::optional_one_of(&hook.get("reinvocationPolicy"), &policies, out);
        client(&hook.get("clientConfig"), out);
        versions(&hook.get("admissionReviewVersions"), out);
        if list.items().take(at).any(|other| other.get("name").text() == name.text()) {
            out.push(name.duplicate());
        }
    }
}

fn full_name(name: &Field, out: &mut Errors) {
    let faults = names::dns_subdomain(name.text());
    if name.text().is_empty() {
        out.push(name.required(""));
    } else if !faults.is_empty() {
        out.push(name.invalid(faults.join(",")));
    } else if name.text().split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        out.push(name.invalid(why));
    }
}

fn client(client: &Field, out: &mut Errors) {
    let (url, service) = (client.get("url"), client.get("service"));
    if url.is_set() == service.is_set() {
        out.push(client.required("exactly one of url or service is required"));
    } else if url.is_set() {
        if !url.text().starts_with("https://") {
            out.push(url.invalid(
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ));
        }
    } else {
        for (name, what) in
            [("name", "service name is required"), ("namespace", "service namespace is required")]
        {
            let field = service.get(name);
            if field.text().is_empty() {
                out.push(field.required(what));
            }
        }
        if let Some(fault) = names::port_number(service.get("port").int().unwrap_or(443)) {
            let port = service.get("port");
            out.push(port.invalid(format!("port is not valid: {fault}")));
        }
    }
}

fn versions(list: &Field, out: &mut Errors) {
    if list.is_empty() {
        out.push(list.required("must specify one of v1, v1beta1"));
        return;
    }
    for (at, version) in list.items().enumerate() {
        validate::format(&version, names::dns_1035_label, out);
        if list.items().take(at).any(|other| other.text() == version.text()) {
            out.push(version.duplicate());
        }
    }
    if !list.items().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        out.push(list.invalid("must include at least one of v1, v1beta1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};
    use serde_json::json;

    #[test]
    fn a_webhook_says_where_it_is_and_what_it_does() {
        let made = created(
            &MUTATING,
            json!({"webhooks": [
                {"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                 "clientConfig": {"service": {"name": "s", "namespace": "n"}}},
                {"name": "a", "clientConfig": {}},
            ]}),
        );
        assert_eq!(made["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        assert_eq!(made["webhooks"][0]["reinvocationPolicy"], "Never");
        assert_eq!(
            errors_of_create(&MUTATING, &made),
            [
                "webhooks[1].name: Invalid value: \"a\": should be a domain with at least three \
                 segments separated by dots",
                "webhooks[1].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[1].clientConfig: Required value: exactly one of url or service is \
                 required",
                "webhooks[1].admissionReviewVersions: Required value: must specify one of v1, \
                 v1beta1",
            ]
        );
    }
}
