//! Client certificates: the common name is the user, the organizations are the groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;

use super::Refusal;
use crate::api::pki::{Authority, provider};
use crate::client::User;
use crate::stdx::clock::SharedClock;

/// Upstream's attribute for a user's uid in a subject (1.3.6.1.4.1.57683.2).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";
/// Good certificates that are remembered; when full, all are forgotten.
const KNOWN_CERTIFICATES_MAX: usize = 4096;

/// A certificate that was found good: its user, and the seconds between which it is.
struct Known {
    user: User,
    not_before: i64,
    not_after: i64,
}

/// Judges the chains that clients present.
pub struct Certificates {
    verifier: Arc<dyn ClientCertVerifier>,
    clock: SharedClock,
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
}

impl Certificates {
    /// Believes what one authority signs.
    pub fn new(authority: &Authority, clock: SharedClock) -> Result<Self, String> {
        let roots = authority.roots().map_err(|error| error.to_string())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { verifier, clock, known: Mutex::default() })
    }

    /// The user of a chain, leaf first; `None` when there is none or it names nobody.
    pub fn authenticate(&self, chain: &[CertificateDer<'_>]) -> Result<Option<User>, Refusal> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let now = self.clock.now().as_second();
        let digest: [u8; 32] = Sha256::digest(leaf).into();
        if let Some(known) = self.known.lock().get(&digest).cloned()
            && (known.not_before..=known.not_after).contains(&now)
        {
            return Ok(Some(known.user.clone()));
        }
        let seconds = u64::try_from(now).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier
            .verify_client_cert(leaf, intermediates, at)
            .map_err(|error| Refusal(format!("x509: {error}")))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| Refusal(format!("x509: {error}")))?;
        let Some(user) = user_of(&parsed, &digest)? else { return Ok(None) };
        let known = Known {
            user: user.clone(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        };
        let mut all = self.known.lock();
        if all.len() >= KNOWN_CERTIFICATES_MAX {
            all.clear();
        }
        all.insert(digest, Arc::new(known));
        Ok(Some(user))
    }
}

fn user_of(certificate: &X509Certificate<'_>, digest: &[u8]) -> Result<Option<User>, Refusal> {
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let Some(name) = common_name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let uids: Vec<&str> = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID_OID)
        .filter_map(|attribute| attribute.as_str().ok())
        .collect();
    let uid = match uids.as_slice() {
        [] => "",
        [""] => return Err(Refusal("UID cannot be an empty string".to_owned())),
        [one] => one,
        many => return Err(Refusal(format!("expected 1 UID, but found multiple: {many:?}"))),
    };
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups =
        subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    Ok(Some(User {
        name: name.to_owned(),
        uid: uid.to_owned(),
        groups: groups.collect(),
        extra: [(super::CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")])].into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pki::{Identity, Leaf, tests::temporary};
    use rustls::pki_types::pem::PemObject;

    fn der(identity: &Identity) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()
    }

    #[test]
    fn our_authoritys_certificates_are_users_until_they_end() {
        let (_dir, clock, pki) = temporary();
        let judge = Certificates::new(pki.ca(), clock.clone()).unwrap();
        let admin = der(&pki.identity(Leaf::Admin).unwrap());
        let user = judge.authenticate(std::slice::from_ref(&admin)).unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("kubernetes-admin", vec!["system:masters".to_owned()])
        );
        assert!(user.extra[crate::api::authn::CREDENTIAL_ID][0].starts_with("X509SHA256="));
        let node = der(&pki.identity(Leaf::Node).unwrap());
        let user = judge.authenticate(&[node]).unwrap().unwrap();
        assert_eq!(user.name, "system:node:node");
        clock.advance(Duration::from_secs(366 * 86_400));
        assert!(judge.authenticate(&[admin]).unwrap_err().0.contains("xpired"));
    }

    #[test]
    fn foreign_authorities_and_servers_certificates_are_refused() {
        let (_dir, clock, pki) = temporary();
        let (_dir, _, foreign) = temporary();
        let judge = Certificates::new(pki.ca(), clock).unwrap();
        let stranger = der(&foreign.identity(Leaf::Admin).unwrap());
        assert!(judge.authenticate(&[stranger]).is_err());
        let server = der(&pki.identity(Leaf::Server).unwrap());
        assert!(judge.authenticate(&[server]).is_err());
        let proxy = der(&pki.identity(Leaf::FrontProxy).unwrap());
        assert!(judge.authenticate(&[proxy]).is_err());
        assert_eq!(judge.authenticate(&[]), Ok(None));
    }
}
