//! Who is it? Credentials become a [`User`], or 401.
//!
//! Certificates first, then bearer tokens (service accounts, bootstrap tokens). Why a refusal by
//! one is no end: upstream asks them all, and a good token mends a bad certificate; only when none
//! accepts and something was offered is it a 401. Nothing offered is anonymous, and anonymous sees
//! health and version, no more.

pub mod bootstrap_token;
pub mod jwt;
pub mod review;
pub mod service_account;
pub mod x509;

use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use self::bootstrap_token::BootstrapTokens;
use self::service_account::ServiceAccounts;
use self::x509::Certificates;
use super::objects::SharedObjects;
use super::pki::Pki;
use crate::client::User;
use crate::object::Status;
use crate::object::status::Result;
use crate::stdx::clock::SharedClock;

/// The key in a user's `extra` that names the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The group of everyone who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of everyone who is not known.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// What a connection and a request offer as proof.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The client's certificate chain, leaf first; its handshake signature is checked, its issuer
    /// is not yet.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The bearer token.
    pub bearer: Option<String>,
}

/// Turns credentials into a user. `Ok(None)`: these are not mine; `Err`: they are, and wrong.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Checks `credentials`.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>>;
}

/// Why a credential is not good; for logs and TokenReviews, the client only learns 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A token's user, and those of the asked audiences that the token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The user, without the groups that everyone gets.
    pub user: User,
    /// Empty for tokens that know no audiences.
    pub audiences: Vec<String>,
}

/// Judges one kind of bearer token. `Ok(None)`: not this kind.
pub trait TokenAuthenticator: Send + Sync {
    /// `audiences`: who asks; empty for the API server itself.
    fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Option<Accepted>, Refusal>;
}

/// All ways to be known.
pub struct Authentication {
    certificates: Certificates,
    service_accounts: Arc<ServiceAccounts>,
    bootstrap_tokens: BootstrapTokens,
}

impl Authentication {
    /// With the PKI's keys; `domain` is the cluster's.
    pub fn new(
        pki: &Pki,
        domain: &str,
        objects: SharedObjects,
        clock: SharedClock,
    ) -> std::result::Result<Self, String> {
        let service_accounts = ServiceAccounts::new(pki, domain, objects.clone(), clock.clone())?;
        Ok(Self {
            certificates: Certificates::new(pki.ca(), clock.clone())?,
            service_accounts: Arc::new(service_accounts),
            bootstrap_tokens: BootstrapTokens::new(objects, clock),
        })
    }

    /// The maker of service-account tokens.
    pub fn service_accounts(&self) -> Arc<ServiceAccounts> {
        self.service_accounts.clone()
    }

    /// Judges a bearer token of any kind; the user has the groups that everyone gets.
    pub fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Accepted, Refusal> {
        let kinds: [&dyn TokenAuthenticator; 2] = [&*self.service_accounts, &self.bootstrap_tokens];
        let mut refusals = Vec::new();
        for kind in kinds {
            match kind.authenticate_token(token.trim(), audiences) {
                Ok(Some(mut accepted)) => {
                    accepted.user = known(accepted.user);
                    return Ok(accepted);
                }
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal.0),
            }
        }
        let text =
            if refusals.is_empty() { "invalid bearer token".into() } else { refusals.join(", ") };
        Err(Refusal(text))
    }
}

#[async_trait]
impl Authenticator for Authentication {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>> {
        let mut refused = None;
        match self.certificates.authenticate(&credentials.certificates) {
            Ok(Some(user)) => return Ok(Some(known(user))),
            Ok(None) => {}
            Err(refusal) => refused = Some(refusal.0),
        }
        if let Some(token) = credentials.bearer.as_deref().filter(|token| !token.trim().is_empty())
        {
            match self.token(token, &[]) {
                Ok(accepted) => return Ok(Some(accepted.user)),
                Err(refusal) => refused = Some(refusal.0),
            }
        }
        match refused {
            None => Ok(None),
            Some(reason) => {
                tracing::debug!("unable to authenticate the request: {reason}");
                Err(Status::unauthorized())
            }
        }
    }
}

/// Adds the group of everyone who is known.
fn known(mut user: User) -> User {
    let has = |name: &str| user.groups.iter().any(|group| group == name);
    if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) && user.name != ANONYMOUS {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

/// Who a request without credentials is: nobody, except for health and version.
pub fn anonymous(path: &str) -> Option<User> {
    let open = ["/healthz", "/livez", "/readyz", "/version"].contains(&path.trim_end_matches('/'));
    open.then(|| User {
        name: ANONYMOUS.to_owned(),
        groups: vec![UNAUTHENTICATED.to_owned()],
        ..User::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::MemoryObjects;
    use crate::api::pki::{Leaf, tests::temporary};
    use rustls::pki_types::pem::PemObject;
    use serde_json::json;

    #[tokio::test]
    async fn a_good_credential_wins_a_bad_one_is_401_and_none_is_nobody() {
        let (_dir, clock, pki) = temporary();
        let (_dir, _, foreign) = temporary();
        let objects = MemoryObjects::with([(
            "serviceaccounts",
            "",
            json!({"metadata": {"namespace": "ns", "name": "sa", "uid": "u"}}),
        )]);
        let all = Authentication::new(&pki, "cluster.local", Arc::new(objects), clock).unwrap();
        let der = |pki: &Pki| {
            let identity = pki.identity(Leaf::Admin).unwrap();
            CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()
        };
        let made = all.service_accounts().request_token("ns", "sa", json!({})).unwrap();
        let good = made["status"]["token"].as_str().map(str::to_owned);
        let bad = Some("nonsense".to_owned());
        for (certificate, bearer, expected) in [
            (None, None, Ok(None)),
            (Some(der(&pki)), None, Ok(Some("kubernetes-admin"))),
            (Some(der(&foreign)), None, Err(401)),
            (Some(der(&foreign)), good.clone(), Ok(Some("system:serviceaccount:ns:sa"))),
            (None, good, Ok(Some("system:serviceaccount:ns:sa"))),
            (None, bad, Err(401)),
        ] {
            let certificates = certificate.into_iter().collect();
            let user = all.authenticate(&Credentials { certificates, bearer }).await;
            if let Ok(Some(user)) = &user {
                assert!(user.groups.contains(&AUTHENTICATED.to_owned()));
            }
            let got = user.as_ref().map(|user| user.as_ref().map(|user| user.name.as_str()));
            assert_eq!(got.map_err(|status| status.code), expected);
        }
    }

    #[test]
    fn anonymous_sees_health_and_version_only() {
        for open in ["/healthz", "/livez", "/readyz", "/version", "/version/"] {
            assert!(anonymous(open).is_some(), "{open}");
        }
        for closed in ["/", "/api", "/metrics", "/healthz/etcd", "/readyzz", "/livez/../api"] {
            assert!(anonymous(closed).is_none(), "{closed}");
        }
    }
}
