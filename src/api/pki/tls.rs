//! TLS as Kubernetes does it: client certificates are asked for, not demanded.
//!
//! Why a verifier that checks the handshake's signature alone: a certificate of a foreign or
//! expired kind must be answered with a 401 Status, not with a broken connection; whether the
//! chain is good is for authentication to say. The signature still proves that the client holds
//! the key. The provider is named explicitly everywhere, so that no dependency picks another.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::{Authority, Identity, Result};

/// The one crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server's certificate that can be exchanged while the server runs.
#[derive(Debug, Default)]
pub struct SwapCertificate {
    current: ArcSwapOption<CertifiedKey>,
}

impl SwapCertificate {
    /// Takes over a certificate for the handshakes to come.
    pub fn set(&self, identity: &Identity) -> Result<()> {
        let (chain, key) = decode(identity)?;
        let key = CertifiedKey::from_der(chain, key, &provider())?;
        self.current.store(Some(Arc::new(key)));
        Ok(())
    }

    /// The certificate that is shown now.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for SwapCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

fn decode(
    identity: &Identity,
) -> std::result::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rustls::Error> {
    let bad = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(bad)?;
    Ok((chain, key))
}

/// Asks for a certificate and checks only that the client holds its key.
#[derive(Debug)]
struct HandshakeOnly {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for HandshakeOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The configuration of a server that shows `certificate` and hints at the authorities whose
/// clients it will believe. `alpn`: as in `[b"h2", b"http/1.1"]`.
pub fn server_config(
    certificate: Arc<SwapCertificate>,
    authorities: &[&Authority],
    alpn: &[&[u8]],
) -> Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.certificate().clone())?;
    }
    let verifier = HandshakeOnly { hints: roots.subjects(), provider: provider() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Whom a client of ours trusts and who it is.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The only authority it believes, in PEM.
    pub ca_pem: String,
    /// Its own certificate, if it shows one.
    pub identity: Option<Identity>,
}

/// The configuration of a client that believes one authority and no other.
pub fn client_config(pinned: &Pinned, alpn: &[&[u8]]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pinned.ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| rustls::Error::General(error.to_string()))?;
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &pinned.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = decode(identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pki::{Leaf, Pki, tests::temporary};
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Shakes hands; gives what the server saw of the client's chain.
    async fn shake(server: &Pki, pinned: &Pinned) -> std::io::Result<usize> {
        let config = server_config(server.serving(), &[server.ca()], &[b"h2"]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connector = TlsConnector::from(Arc::new(client_config(pinned, &[b"h2"]).unwrap()));
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let (server, client) = tokio::join!(acceptor.accept(theirs), connector.connect(name, ours));
        client?;
        Ok(server?.get_ref().1.peer_certificates().map_or(0, <[_]>::len))
    }

    /// The real clock's certificates: rustls reads the time by itself.
    fn now() -> (tempfile::TempDir, Pki) {
        let (dir, clock, _old) = temporary();
        let now = jiff::Timestamp::now().as_second();
        let past = crate::stdx::clock::Clock::now(&*clock).as_second();
        let ahead = u64::try_from(now - past).unwrap_or(0);
        clock.advance(std::time::Duration::from_secs(ahead));
        let mut options = _old.options.clone();
        options.dir = dir.path().join("pki-now");
        let pki = Pki::open(options, clock).unwrap();
        (dir, pki)
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_but_neither_needed_nor_judged() {
        let (_dir, ours) = now();
        let (_dir, foreign) = now();
        let identity = |pki: &Pki| Some(pki.identity(Leaf::Admin).unwrap());
        let ca_pem = ours.ca().pem().to_owned();
        for (identity, seen) in [(None, 0), (identity(&ours), 1), (identity(&foreign), 1)] {
            let pinned = Pinned { ca_pem: ca_pem.clone(), identity };
            assert_eq!(shake(&ours, &pinned).await.unwrap(), seen);
        }
    }

    #[tokio::test]
    async fn a_client_believes_only_the_authority_it_was_given() {
        let (_dir, ours) = now();
        let (_dir, foreign) = now();
        let pinned = Pinned { ca_pem: foreign.ca().pem().to_owned(), identity: None };
        assert!(shake(&ours, &pinned).await.is_err());
    }
}
