//! CertificateSigningRequest.
//!
//! Why its spec never changes: it is what somebody approved. Why who asks is written into it here:
//! signers trust those fields, so no client may choose them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, list, number, or};
use super::super::field::{Errors, Field};
use super::super::fill::child_mut;
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write, age, human_duration};
use crate::object::status::FieldError;
use crate::object::{Value, meta, time};

/// The CertificateSigningRequest's strategy.
pub(in super::super) struct CertificateSigningRequest;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SECONDS_MIN: i64 = 600;

impl Strategy for CertificateSigningRequest {
    fn prepare_create(&self, write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({});
        let Some(spec) = child_mut(object, &["spec"]) else { return };
        for name in ["username", "uid", "groups", "extra"] {
            spec.remove(name);
        }
        let user = write.user;
        spec.insert("username".to_owned(), user.name.as_str().into());
        spec.insert("groups".to_owned(), user.groups.clone().into());
        if !user.uid.is_empty() {
            spec.insert("uid".to_owned(), user.uid.as_str().into());
        }
        if !user.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(user.extra));
        }
    }

    fn prepare_update(&self, write: &Write<'_>, new: &mut Value, old: &Value) {
        let conditions = meta::at(new, &["status", "conditions"]).cloned();
        for part in ["spec", "status"] {
            meta::set(new, &[part], old.get(part).cloned().unwrap_or_default());
        }
        if write.subresource == "approval" {
            if let Some(conditions) = conditions {
                meta::set(new, &["status", "conditions"], conditions);
            }
            stamp(new, old, write.now);
        }
    }

    fn prepare_status(&self, write: &Write<'_>, new: &mut Value, old: &Value) {
        // Approval is written by its own subresource alone.
        let decides = |one: &Value| matches!(meta::text(one, &["type"]), "Approved" | "Denied");
        let conditions = list(new, &["status", "conditions"]).iter();
        let mut kept: Vec<Value> = conditions.filter(|one| !decides(one)).cloned().collect();
        kept.extend(
            list(old, &["status", "conditions"]).iter().filter(|one| decides(one)).cloned(),
        );
        if !kept.is_empty() {
            meta::set(new, &["status", "conditions"], kept);
        }
        stamp(new, old, write.now);
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(object, &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(new);
        let status = root.get("status");
        let conditions = status.get("conditions");
        for condition in conditions.items() {
            let (kind, state) = (condition.get("type"), condition.get("status"));
            validate::required(&kind, &mut out);
            if matches!(kind.text(), "Approved" | "Denied" | "Failed") {
                validate::one_of(&state, &["True"], &mut out);
            } else {
                validate::one_of(&state, &["False", "True", "Unknown"], &mut out);
            }
        }
        let has = |kind: &str| conditions.items().any(|one| one.get("type").text() == kind);
        if has("Approved") && has("Denied") {
            out.push(conditions.invalid("Approved and Denied conditions are mutually exclusive"));
        }
        out
    }

    fn check_name(&self, _name: &str) -> Option<String> {
        None
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", meta::text(object, &["spec", "signerName"]).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[AGE, col("SignerName"), col("Requestor"), col("RequestedDuration"), col("Condition")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let text = |name: &str| meta::text(object, &["spec", name]);
        let seconds = number(object, &["spec", "expirationSeconds"]);
        let duration = if seconds == 0 { "<none>".to_owned() } else { human_duration(seconds) };
        vec![
            age(object, now).into(),
            or(text("signerName"), "<none>").into(),
            text("username").into(),
            duration.into(),
            state(object).into(),
        ]
    }
}

fn state(object: &Value) -> String {
    let conditions = list(object, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|one| meta::text(one, &["type"]) == kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !meta::text(object, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state
}

/// Gives conditions without times the time of now, or of the same condition before.
fn stamp(new: &mut Value, old: &Value, now: Timestamp) {
    let now = Value::from(time::seconds(now));
    let Some(status) = child_mut(new, &["status"]) else { return };
    for condition in super::super::fill::list_mut(status, "conditions") {
        if meta::text(condition, &["lastUpdateTime"]).is_empty() {
            meta::set(condition, &["lastUpdateTime"], now.clone());
        }
        if meta::text(condition, &["lastTransitionTime"]).is_empty() {
            let same = |one: &&Value| {
                one.get("type") == condition.get("type")
                    && one.get("status") == condition.get("status")
            };
            let before = list(old, &["status", "conditions"]).iter().find(same);
            let before = before.and_then(|one| one.get("lastTransitionTime")).cloned();
            meta::set(condition, &["lastTransitionTime"], before.unwrap_or_else(|| now.clone()));
        }
    }
}

fn check(object: &Value, out: &mut Errors) {
    let root = Field::root(object);
    let spec = root.get("spec");
    let (request, usages) = (spec.get("request"), spec.get("usages"));
    if !is_request(request.text()) {
        let why = "PEM block type must be CERTIFICATE REQUEST";
        out.push(request.invalid_omitting_value(why));
    }
    validate::required(&usages, out);
    for (at, usage) in usages.items().enumerate() {
        validate::optional_one_of(&usage, USAGES, out);
        if usages.items().take(at).any(|other| other.text() == usage.text()) {
            out.push(usage.duplicate());
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == "kubernetes.io/legacy-unknown" {
        let why = "the legacy signerName is not allowed via this API version";
        out.push(signer.invalid(why));
    } else if signer.text().is_empty() {
        out.push(signer.required(""));
    } else if signer.text().split('/').count() != 2 {
        out.push(signer.invalid(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ));
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        out.push(seconds.invalid(why));
    }
}

/// Whether base64 text holds a PEM certificate request that can be read.
fn is_request(encoded: &str) -> bool {
    use x509_parser::prelude::FromDer;
    let Ok(bytes) = STANDARD.decode(encoded) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&bytes) else { return false };
    pem.label == "CERTIFICATE REQUEST"
        && x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, updated};

    #[test]
    fn approval_touches_conditions_alone() {
        let old = json!({"spec": {"usages": ["client auth"]}, "status": {}});
        let new = json!({"spec": {"usages": []}, "status": {
            "certificate": "x", "conditions": [{"type": "Approved", "status": "True"}]}});
        let approved = updated(&CertificateSigningRequest, "approval", new.clone(), &old);
        assert_eq!(approved["spec"], old["spec"]);
        assert_eq!(
            approved["status"],
            json!({"conditions": [{
            "type": "Approved", "status": "True",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        );
        assert_eq!(state(&approved), "Approved");
        let plain = updated(&CertificateSigningRequest, "", new, &old);
        assert_eq!(plain["status"], json!({}));
    }

    #[test]
    fn who_asks_cannot_be_chosen() {
        let forged = json!({"spec": {"username": "root", "groups": ["system:masters"]}});
        let made = created(&CertificateSigningRequest, forged);
        assert_eq!(
            made["spec"],
            json!({"username": "jane", "uid": "7", "groups": ["system:authenticated"]})
        );
    }

    #[test]
    fn a_request_must_be_one() {
        let texts = errors_of_create(
            &CertificateSigningRequest,
            &json!({"spec": {"request": "AAAA", "usages": ["flying"], "signerName": "a/b"}}),
        );
        assert_eq!(
            texts[0],
            "spec.request: Invalid value: PEM block type must be CERTIFICATE REQUEST"
        );
        assert!(texts[1].starts_with("spec.usages[0]: Unsupported value: \"flying\""));
    }
}
