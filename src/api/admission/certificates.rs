//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may approve and sign
//! certificate requests, and that nobody signs himself into the superusers' group.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Operation, Plugin, Request};
use crate::api::authn::MASTERS;
use crate::api::authz::{Authorizer, Decision};
use crate::api::context::Attributes;
use crate::object::status::Result;
use crate::object::{Gvr, Value, meta};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

/// Reads a request's subject: (common names, organizations).
fn subject(object: &Value) -> std::result::Result<(Vec<String>, Vec<String>), String> {
    let malformed = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let pem = STANDARD
        .decode(meta::text(object, &["spec", "request"]))
        .map_err(|error| error.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| malformed())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(malformed());
    }
    let (_, parsed) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    let text =
        |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().map(str::to_owned).ok();
    Ok((
        subject.iter_common_name().filter_map(text).collect(),
        subject.iter_organization().filter_map(text).collect(),
    ))
}

/// The common name that a CertificateSigningRequest asks for.
pub(super) fn common_name(object: &Value) -> std::result::Result<String, String> {
    Ok(subject(object)?.0.pop().unwrap_or_default())
}

/// Whether the user may do `verb` for the signer, by its name or for its whole domain.
async fn may(authorizer: &dyn Authorizer, request: &Request, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let what = Attributes {
            verb: verb.to_owned(),
            gvr: Some(Gvr::new(GROUP, "*", "signers")),
            name,
            subresource: String::new(),
            namespace: String::new(),
            ..request.attributes.clone()
        };
        if matches!(authorizer.authorize(&what).await, Decision::Allow(_)) {
            return true;
        }
    }
    false
}

/// Approving needs the right to approve for the signer.
pub(super) struct CertificateApproval(pub(super) Arc<dyn Authorizer>);

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let is_it = request.is_sub(GROUP, REQUESTS, "approval");
        let Some(old) = request.old.as_deref().filter(|_| is_it) else { return Ok(()) };
        let signer = meta::text(old, &["spec", "signerName"]);
        if may(&*self.0, request, "approve", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(request.forbidden(why))
    }
}

/// Setting a certificate needs the right to sign for the signer.
pub(super) struct CertificateSigning(pub(super) Arc<dyn Authorizer>);

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let is_it = request.is_sub(GROUP, REQUESTS, "status");
        let (Some(old), Some(new)) = (request.old.as_deref().filter(|_| is_it), &request.object)
        else {
            return Ok(());
        };
        let certificate = ["status", "certificate"];
        if meta::at(old, &certificate) == meta::at(new, &certificate) {
            return Ok(());
        }
        let signer = meta::text(old, &["spec", "signerName"]);
        if may(&*self.0, request, "sign", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(request.forbidden(why))
    }
}

/// No client certificate for the superusers' group.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        let is_new = request.is(GROUP, REQUESTS) && request.operation == Operation::Create;
        let Some(object) = request.object.as_ref().filter(|_| is_new) else { return Ok(()) };
        if meta::text(object, &["spec", "signerName"]) != SIGNER {
            return Ok(());
        }
        let (_, organizations) = subject(object)
            .map_err(|error| request.forbidden(format!("failed to parse CSR: {error}")))?;
        if organizations.iter().any(|name| name == MASTERS) {
            return Err(request
                .forbidden(format!("use of {SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::admission::tests::{request, update};
    use serde_json::json;

    /// A CertificateSigningRequest for this subject.
    pub fn signing_request(signer: &str, common_name: &str, organization: &str) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"metadata": {"name": "csr"},
            "spec": {"signerName": signer, "request": STANDARD.encode(pem)}})
    }

    struct Only(&'static str);

    #[async_trait]
    impl Authorizer for Only {
        async fn authorize(&self, what: &Attributes) -> Decision {
            if format!("{} {}", what.verb, what.name) == self.0 {
                return Decision::Allow(String::new());
            }
            Decision::NoOpinion(String::new())
        }
    }

    #[tokio::test]
    async fn approving_and_signing_need_a_right_on_the_signer() {
        let csr = signing_request("example.com/x", "a", "b");
        let mut signed = csr.clone();
        signed["status"] = json!({"certificate": "Zg=="});
        for (right, may_approve, may_sign) in [
            ("approve example.com/x", true, false),
            ("approve example.com/*", true, false),
            ("sign example.com/x", false, true),
            ("sign example.com/y", false, false),
        ] {
            let mut approval = update(REQUESTS, GROUP, "", csr.clone(), csr.clone());
            approval.attributes.subresource = "approval".to_owned();
            let plugin = CertificateApproval(Arc::new(Only(right)));
            assert_eq!(plugin.validate(&approval).await.is_ok(), may_approve, "{right}");
            let mut status = update(REQUESTS, GROUP, "", signed.clone(), csr.clone());
            status.attributes.subresource = "status".to_owned();
            let plugin = CertificateSigning(Arc::new(Only(right)));
            assert_eq!(plugin.validate(&status).await.is_ok(), may_sign, "{right}");
        }
    }

    #[tokio::test]
    async fn nobody_signs_himself_into_the_superusers() {
        let signer = "kubernetes.io/kube-apiserver-client";
        for (organization, allowed) in [("users", true), (MASTERS, false)] {
            let csr = signing_request(signer, "eve", organization);
            let request = request(REQUESTS, GROUP, "", csr);
            let result = CertificateSubjectRestriction.validate(&request).await;
            assert_eq!(result.is_ok(), allowed, "{organization}");
        }
    }
}
