//! Service-account tokens: made by the TokenRequest subresource, accepted as bearer tokens.
//!
//! Why the objects are looked up on every request: a token is as good as the account, pod, secret
//! or node it is bound to, so deleting that one revokes it at once. Only the signature's check is
//! remembered, which no later event can undo.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::jwt::{Bindings, Claims, Reference, Signer};
use super::{Accepted, Refusal, TokenAuthenticator};
use crate::api::objects::SharedObjects;
use crate::api::pki::Pki;
use crate::client::User;
use crate::object::status::{FieldError, Result};
use crate::object::{GroupVersion, Gvr, Status, Value, meta, time};
use crate::stdx::clock::SharedClock;
use crate::stdx::ids;

/// How far clocks may differ (go-jose's default leeway), in seconds.
const LEEWAY_SECONDS: i64 = 60;
/// A TokenRequest's default life, in seconds.
const DEFAULT_LIFE_SECONDS: i64 = 3600;
/// The shortest life that may be asked for, in seconds.
const LIFE_SECONDS_MIN: i64 = 600;
/// The longest life that may be asked for, in seconds.
const LIFE_SECONDS_MAX: i64 = 1 << 32;
/// Checked signatures that are remembered; when full, all are forgotten.
const VERIFIED_TOKENS_MAX: usize = 4096;

/// The start of a service account's user name.
pub const USER_PREFIX: &str = "system:serviceaccount:";

/// The user that a service account is.
pub fn user(namespace: &str, name: &str, uid: &str) -> User {
    User {
        name: format!("{USER_PREFIX}{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra: Default::default(),
    }
}

/// Makes service-account tokens and judges them.
pub struct ServiceAccounts {
    signer: Signer,
    issuer: String,
    objects: SharedObjects,
    clock: SharedClock,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl ServiceAccounts {
    /// With the PKI's key, for the cluster's domain.
    pub fn new(
        pki: &Pki,
        domain: &str,
        objects: SharedObjects,
        clock: SharedClock,
    ) -> std::result::Result<Self, String> {
        let signer = Signer::new(pki.signing_key_pkcs8(), &pki.signing_key_spki())?;
        let issuer = format!("https://kubernetes.default.svc.{domain}");
        Ok(Self { signer, issuer, objects, clock, verified: Mutex::default() })
    }

    /// Who signs, and for whom when nobody is named.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        self.signer.key_set()
    }

    /// POST to `serviceaccounts/NAME/token`: a TokenRequest comes back with its token.
    pub fn request_token(&self, namespace: &str, name: &str, mut body: Value) -> Result<Value> {
        self.check_names(namespace, name, &body)?;
        let accounts = Gvr::new("", "v1", "serviceaccounts");
        let account = self
            .objects
            .get("serviceaccounts", "", namespace, name)
            .ok_or_else(|| Status::not_found(&accounts, name))?;
        let uid = meta::uid(&account);
        let asked = meta::uid(&body).to_owned();
        if !asked.is_empty() && asked != uid {
            let gvr = Gvr::new("authentication.k8s.io", "v1", "TokenRequest");
            let why = format!(
                "the UID in the token request ({asked}) does not match the UID of the service \
                 account ({uid})"
            );
            return Err(Status::conflict(&gvr, name, &why));
        }
        let audiences = texts(meta::at(&body, &["spec", "audiences"]));
        let audiences = if audiences.is_empty() { vec![self.issuer.clone()] } else { audiences };
        let life = meta::at(&body, &["spec", "expirationSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(DEFAULT_LIFE_SECONDS);
        check_life(life)?;
        let mut bindings = Bindings {
            namespace: namespace.to_owned(),
            serviceaccount: Reference { name: name.to_owned(), uid: uid.to_owned() },
            pod: None,
            secret: None,
            node: None,
        };
        if let Some(reference) = meta::at(&body, &["spec", "boundObjectRef"])
            && !reference.is_null()
        {
            self.bind(&mut bindings, reference)?;
        }
        let now = self.clock.now();
        let claims = Claims {
            aud: audiences.clone(),
            exp: now.as_second() + life,
            iat: now.as_second(),
            iss: self.issuer.clone(),
            jti: ids::uid(),
            kubernetes: bindings,
            nbf: now.as_second(),
            sub: format!("{USER_PREFIX}{namespace}:{name}"),
        };
        let token = self.signer.sign(&claims).map_err(Status::internal)?;
        for (field, text) in [("name", name), ("namespace", namespace), ("uid", uid)] {
            meta::set(&mut body, &["metadata", field], text);
        }
        meta::set(&mut body, &["metadata", "creationTimestamp"], time::seconds(now));
        meta::set(&mut body, &["spec", "audiences"], audiences);
        meta::set(&mut body, &["spec", "expirationSeconds"], life);
        let end = jiff::Timestamp::from_second(claims.exp).map_err(Status::internal)?;
        body["status"] = json!({"token": token, "expirationTimestamp": time::seconds(end)});
        body["apiVersion"] = json!("authentication.k8s.io/v1");
        body["kind"] = json!("TokenRequest");
        Ok(body)
    }

    fn check_names(&self, namespace: &str, name: &str, body: &Value) -> Result<()> {
        let wrong = |field: &str, value: &str, what: &str| {
            let detail = format!("must match the service account {what} if specified");
            let error = FieldError::invalid(field, value, detail);
            Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error])
        };
        match (meta::name(body), meta::namespace(body)) {
            (other, _) if !other.is_empty() && other != name => {
                Err(wrong("metadata.name", other, "name"))
            }
            (_, other) if !other.is_empty() && other != namespace => {
                Err(wrong("metadata.namespace", other, "namespace"))
            }
            _ => Ok(()),
        }
    }

    /// Fills in the object that the token will be bound to.
    fn bind(&self, bindings: &mut Bindings, reference: &Value) -> Result<()> {
        let text = |field: &str| meta::text(reference, &[field]);
        let group = match text("apiVersion") {
            "" => String::new(),
            version => GroupVersion::parse(version).map_or(version.to_owned(), |gv| gv.group),
        };
        let (kind, name) = (text("kind"), text("name"));
        let (resource, namespace) = match (group.as_str(), kind) {
            ("", "Pod") => ("pods", bindings.namespace.as_str()),
            ("", "Secret") => ("secrets", bindings.namespace.as_str()),
            ("", "Node") => ("nodes", ""),
            _ => {
                let version = text("apiVersion");
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {version}, Kind={kind}"
                )));
            }
        };
        let object = self
            .objects
            .get(resource, "", namespace, name)
            .ok_or_else(|| Status::not_found(&Gvr::new("", "v1", resource), name))?;
        let account = &bindings.serviceaccount.name;
        if resource == "pods" && meta::text(&object, &["spec", "serviceAccountName"]) != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different \
                 serviceaccount name."
            )));
        }
        let uid = meta::uid(&object);
        if !text("uid").is_empty() && text("uid") != uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The \
                 object might have been deleted and then recreated",
                text("uid")
            );
            return Err(Status::conflict(&Gvr::new(group, "v1", kind), name, &why));
        }
        let bound = Some(Reference { name: name.to_owned(), uid: uid.to_owned() });
        match resource {
            "pods" => {
                bindings.pod = bound;
                bindings.node = self.node_of(&object);
            }
            "secrets" => bindings.secret = bound,
            _ => bindings.node = bound,
        }
        Ok(())
    }

    fn node_of(&self, pod: &Value) -> Option<Reference> {
        let name = meta::text(pod, &["spec", "nodeName"]);
        (!name.is_empty()).then(|| {
            let node = self.objects.get("nodes", "", "", name);
            let uid = node.map(|node| meta::uid(&node).to_owned()).unwrap_or_default();
            Reference { name: name.to_owned(), uid }
        })
    }

    /// The claims of a token whose signature is good.
    fn verified(&self, token: &str) -> std::result::Result<Arc<Claims>, String> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.lock().get(&digest) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.signer.verify(token)?);
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_TOKENS_MAX {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Ok(claims)
    }

    /// Whether all that a token is bound to is still there.
    fn check_bindings(&self, bindings: &Bindings) -> std::result::Result<(), String> {
        let gone_before = self.clock.now().as_second() - LEEWAY_SECONDS;
        let ended = |object: &Value| {
            let time = meta::text(object, &["metadata", "deletionTimestamp"]);
            time::parse(time).is_some_and(|time| time.as_second() < gone_before)
        };
        let namespace = bindings.namespace.as_str();
        let account = &bindings.serviceaccount;
        let object = self
            .objects
            .get("serviceaccounts", "", namespace, &account.name)
            .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        if meta::uid(&object) != account.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                meta::uid(&object),
                account.uid
            ));
        }
        if ended(&object) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        let node = bindings.node.as_ref().filter(|_| bindings.pod.is_none());
        for (reference, resource, namespace, kind, short) in [
            (bindings.secret.as_ref(), "secrets", namespace, "secret", "secret"),
            (bindings.pod.as_ref(), "pods", namespace, "pod", "pod"),
            (node, "nodes", "", "node", "node"),
        ] {
            let Some(reference) = reference else { continue };
            let invalidated = || "service account token has been invalidated".to_owned();
            let object = self
                .objects
                .get(resource, "", namespace, &reference.name)
                .ok_or_else(invalidated)?;
            if meta::uid(&object) != reference.uid {
                let uid = meta::uid(&object);
                return Err(format!(
                    "{kind} UID ({uid}) does not match service account {short} ref claim ({})",
                    reference.uid
                ));
            }
            if ended(&object) {
                return Err(invalidated());
            }
        }
        Ok(())
    }
}

impl TokenAuthenticator for ServiceAccounts {
    fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Option<Accepted>, Refusal> {
        if Signer::issuer_of(token).as_deref() != Some(self.issuer.as_str()) {
            return Ok(None);
        }
        let claims = self.verified(token)?;
        let own = std::slice::from_ref(&self.issuer);
        let wanted = if audiences.is_empty() { own } else { audiences };
        let given = if claims.aud.is_empty() { own } else { claims.aud.as_slice() };
        let shared: Vec<String> =
            given.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Err(Refusal(format!(
                "token audiences {given:?} is invalid for the target audiences {wanted:?}"
            )));
        }
        let now = self.clock.now().as_second();
        if now > claims.exp + LEEWAY_SECONDS {
            return Err(Refusal("service account token has expired".to_owned()));
        }
        if now < claims.nbf - LEEWAY_SECONDS {
            return Err(Refusal("service account token is not valid yet".to_owned()));
        }
        if now < claims.iat - LEEWAY_SECONDS {
            return Err(Refusal("service account token is issued in the future".to_owned()));
        }
        let bindings = &claims.kubernetes;
        self.check_bindings(bindings)?;
        let account = &bindings.serviceaccount;
        let mut user = user(&bindings.namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                let key = format!("authentication.kubernetes.io/{key}");
                user.extra.insert(key, vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &bindings.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &bindings.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        if !claims.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", claims.jti));
        }
        Ok(Some(Accepted { user, audiences: shared }))
    }
}

fn check_life(seconds: i64) -> Result<()> {
    let detail = if seconds < LIFE_SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LIFE_SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::MemoryObjects;
    use crate::api::pki::tests::temporary;
    use crate::stdx::clock::ManualClock;
    use std::time::Duration;

    struct Setup {
        objects: Arc<MemoryObjects>,
        clock: Arc<ManualClock>,
        accounts: ServiceAccounts,
    }

    fn setup() -> Setup {
        let named = |name: &str, uid: &str| json!({"namespace": "ns", "name": name, "uid": uid});
        let objects = Arc::new(MemoryObjects::with([
            ("serviceaccounts", "", json!({"metadata": named("sa", "sa-uid")})),
            (
                "pods",
                "",
                json!({"metadata": named("pod", "pod-uid"),
                    "spec": {"serviceAccountName": "sa", "nodeName": "n1"}}),
            ),
            ("secrets", "", json!({"metadata": named("secret", "secret-uid")})),
            ("nodes", "", json!({"metadata": {"name": "n1", "uid": "n1-uid"}})),
        ]));
        let (_dir, clock, pki) = temporary();
        let accounts =
            ServiceAccounts::new(&pki, "cluster.local", objects.clone(), clock.clone()).unwrap();
        Setup { objects, clock, accounts }
    }

    fn token(setup: &Setup, spec: Value) -> String {
        let made = setup.accounts.request_token("ns", "sa", json!({"spec": spec})).unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    fn refusal(setup: &Setup, token: &str) -> String {
        setup.accounts.authenticate_token(token, &[]).unwrap_err().0
    }

    #[test]
    fn a_token_is_its_account_and_names_its_pod_and_node() {
        let setup = setup();
        let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "pod"}});
        let accepted =
            setup.accounts.authenticate_token(&token(&setup, bound), &[]).unwrap().unwrap();
        assert_eq!(accepted.user.name, "system:serviceaccount:ns:sa");
        assert_eq!(accepted.user.uid, "sa-uid");
        assert_eq!(accepted.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
        let extra =
            |key: &str| &accepted.user.extra[&format!("authentication.kubernetes.io/{key}")];
        assert_eq!(extra("pod-uid"), &["pod-uid"]);
        assert_eq!(extra("node-uid"), &["n1-uid"]);
        assert!(extra("credential-id")[0].starts_with("JTI="));
        assert_eq!(accepted.audiences, ["https://kubernetes.default.svc.cluster.local"]);
    }

    #[test]
    fn tokens_end_with_their_time_and_with_what_they_are_bound_to() {
        let setup = setup();
        let plain = token(&setup, json!({}));
        let of_pod = token(&setup, json!({"boundObjectRef": {"kind": "Pod", "name": "pod"}}));
        let of_secret =
            token(&setup, json!({"boundObjectRef": {"kind": "Secret", "name": "secret"}}));
        let of_node = token(&setup, json!({"boundObjectRef": {"kind": "Node", "name": "n1"}}));
        setup.objects.remove("pods", "", "ns", "pod");
        setup.objects.put(
            "secrets",
            "",
            json!({"metadata":
            {"namespace": "ns", "name": "secret", "uid": "another"}}),
        );
        setup.objects.remove("nodes", "", "", "n1");
        let invalidated = "service account token has been invalidated";
        assert_eq!(refusal(&setup, &of_pod), invalidated);
        assert_eq!(
            refusal(&setup, &of_secret),
            "secret UID (another) does not match service account secret ref claim (secret-uid)"
        );
        assert_eq!(refusal(&setup, &of_node), invalidated);
        setup.clock.advance(Duration::from_secs(3600 + 60));
        assert!(setup.accounts.authenticate_token(&plain, &[]).unwrap().is_some());
        setup.clock.advance(Duration::from_secs(1));
        assert_eq!(refusal(&setup, &plain), "service account token has expired");
        let fresh = token(&setup, json!({}));
        setup.objects.remove("serviceaccounts", "", "ns", "sa");
        assert_eq!(refusal(&setup, &fresh), "serviceaccounts \"sa\" not found");
    }

    #[test]
    fn other_audiences_signatures_and_issuers_are_refused() {
        let setup = setup();
        let vault = token(&setup, json!({"audiences": ["vault"]}));
        assert!(refusal(&setup, &vault).starts_with("token audiences [\"vault\"] is invalid"));
        let asked = ["vault".to_owned()];
        assert!(setup.accounts.authenticate_token(&vault, &asked).unwrap().is_some());
        let foreign = token(&self::setup(), json!({}));
        assert_eq!(refusal(&setup, &foreign), "invalid signature, no keys found");
        let good = token(&setup, json!({}));
        let (head, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}", "A".repeat(86));
        assert_eq!(refusal(&setup, &forged), "invalid signature");
        assert!(setup.accounts.authenticate_token("abcdef.0123456789abcdef", &[]).is_ok());
        assert!(setup.accounts.authenticate_token("a.b.c", &[]).unwrap().is_none());
    }

    #[test]
    fn requests_are_checked_in_upstreams_words() {
        let setup = setup();
        let ask = |name: &str, body: Value| {
            setup.accounts.request_token("ns", name, body).unwrap_err().message
        };
        assert_eq!(ask("nobody", json!({})), "serviceaccounts \"nobody\" not found");
        assert!(
            ask("sa", json!({"spec": {"expirationSeconds": 599}}))
                .ends_with("Invalid value: 599: may not specify a duration less than 10 minutes")
        );
        let wrong_uid = json!({"spec": {"boundObjectRef":
            {"kind": "Pod", "name": "pod", "uid": "old"}}});
        assert!(ask("sa", wrong_uid).contains("does not match the UID in record"));
        assert_eq!(
            ask("sa", json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Service"}}})),
            "cannot bind token to object of type v1, Kind=Service"
        );
    }
}
