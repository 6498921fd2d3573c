//! The cluster's keys and certificates: made once, kept as files, renewed while the server runs.
//!
//! `DATA/pki` holds a cluster CA, a CA for front proxies, the key that signs service-account
//! tokens, and leaf certificates from one table ([`Leaf`]). Why files and a table: an operator can
//! read, back up or replace each with the tools at hand, under kubeadm's names; and a certificate
//! more is a line more. A leaf is renewed when a third of its life is left (or when its names no
//! longer cover what is configured); the acceptor takes the new one with the next handshake.

mod files;
mod kubeconfig;
mod leaf;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub use kubeconfig::{Kubeconfig, write as write_kubeconfig};
pub use leaf::{Identity, Leaf};
pub use tls::{Pinned, SwapCertificate, client_config, provider, server_config};

use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::{RESTART, Tasks};

/// How long a CA is valid.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How often leaves are looked at; far below a third of the shortest life.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(3600);
/// Certificates are valid from a little before they are made, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of a pair is there, the other is not.
    #[error("{0} exists without its counterpart; restore or remove it")]
    HalfPair(PathBuf),
    /// A file is not what its name says.
    #[error("{path}: {why}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS refused what we made.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// The result of work with keys and certificates.
pub type Result<T> = std::result::Result<T, Error>;

/// What the certificates have to name.
#[derive(Clone, Debug)]
pub struct Options {
    /// `DATA/pki`.
    pub dir: PathBuf,
    /// The machine's host name.
    pub hostname: String,
    /// The name of this machine's node.
    pub node_name: String,
    /// The node's addresses and the one that is advertised.
    pub addresses: Vec<IpAddr>,
    /// The first address of the service range (`default/kubernetes`).
    pub service_ip: IpAddr,
    /// The cluster's domain, as in "cluster.local".
    pub domain: String,
    /// `--tls-san`: more names or addresses.
    pub sans: Vec<String>,
}

/// A certificate authority.
pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open(dir: &Path, stem: &str, common_name: &str, now: jiff::Timestamp) -> Result<Self> {
        let paths = files::Pair::new(dir, stem);
        let (certificate_pem, key_pem) = match paths.read()? {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => return Err(Error::HalfPair(paths.certificate)),
            // A key alone is what a kill between the two writes leaves; a certificate made of it
            // anew vouches for the same leaves.
            (None, key_pem) => {
                let key = match key_pem {
                    Some(pem) => KeyPair::from_pem(&pem)?,
                    None => KeyPair::generate()?,
                };
                let certificate = ca_params(common_name, now).self_signed(&key)?;
                let pair = (certificate.pem(), key.serialize_pem());
                paths.write(&pair.0, &pair.1)?;
                pair
            }
        };
        let bad = |why: String| Error::Malformed { path: paths.certificate.clone(), why };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| bad(error.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| bad(error.to_string()))?;
        leaf::check_pair(&certificate, &key.subject_public_key_info()).map_err(bad)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate_pem, certificate, issuer })
    }

    /// The certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A store that trusts this authority alone.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }
}

fn ca_params(common_name: &str, now: jiff::Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    leaf::set_life(&mut params, now, CA_LIFE);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params
}

/// The keys and certificates of one master.
pub struct Pki {
    options: Options,
    clock: SharedClock,
    ca: Authority,
    front_proxy_ca: Authority,
    signing_key: KeyPair,
    serving: Arc<SwapCertificate>,
    kubelet_serving: Arc<SwapCertificate>,
}

impl Pki {
    /// Reads what is in the directory and makes what is missing.
    pub fn open(options: Options, clock: SharedClock) -> Result<Self> {
        files::make_dir(&options.dir)?;
        let now = clock.now();
        let ca = Authority::open(&options.dir, "ca", "clusterd-ca", now)?;
        let front =
            Authority::open(&options.dir, "front-proxy-ca", "clusterd-front-proxy-ca", now)?;
        let signing_key = open_signing_key(&options.dir)?;
        let pki = Self {
            clock,
            ca,
            front_proxy_ca: front,
            signing_key,
            serving: Arc::default(),
            kubelet_serving: Arc::default(),
            options,
        };
        pki.renew()?;
        Ok(pki)
    }

    /// The cluster's CA, which signs servers and users.
    pub fn ca(&self) -> &Authority {
        &self.ca
    }

    /// The CA of front proxies.
    pub fn front_proxy_ca(&self) -> &Authority {
        &self.front_proxy_ca
    }

    /// The key that signs service-account tokens, as PKCS#8.
    pub fn signing_key_pkcs8(&self) -> &[u8] {
        self.signing_key.serialized_der()
    }

    /// The public half of that key, as SubjectPublicKeyInfo.
    pub fn signing_key_spki(&self) -> Vec<u8> {
        self.signing_key.subject_public_key_info()
    }

    /// The API server's own certificate, always the current one.
    pub fn serving(&self) -> Arc<SwapCertificate> {
        self.serving.clone()
    }

    /// The kubelet's serving certificate, always the current one.
    pub fn kubelet_serving(&self) -> Arc<SwapCertificate> {
        self.kubelet_serving.clone()
    }

    /// The certificate and key of a leaf, both in PEM, as they stand now.
    pub fn identity(&self, leaf: Leaf) -> Result<Identity> {
        let paths = files::Pair::new(&self.options.dir, leaf.stem());
        match paths.read()? {
            (Some(certificate_pem), Some(key_pem)) => Ok(Identity { certificate_pem, key_pem }),
            _ => self.issue(leaf),
        }
    }

    /// The administrator's kubeconfig for a server at `server` (as in "https://127.0.0.1:6443").
    pub fn admin_kubeconfig(&self, server: &str) -> Result<Kubeconfig> {
        let identity = self.identity(Leaf::Admin)?;
        Ok(Kubeconfig {
            server: server.to_owned(),
            ca_pem: self.ca.pem().to_owned(),
            user: "admin".to_owned(),
            identity,
        })
    }

    fn issue(&self, leaf: Leaf) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let params = leaf.params(&self.options, self.clock.now())?;
        let authority = if leaf.is_front_proxy() { &self.front_proxy_ca } else { &self.ca };
        let certificate = params.signed_by(&key, &authority.issuer)?;
        let identity =
            Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        files::Pair::new(&self.options.dir, leaf.stem())
            .write(&identity.certificate_pem, &identity.key_pem)?;
        Ok(identity)
    }

    /// Renews the leaves that need it and gives their names.
    pub fn renew(&self) -> Result<Vec<&'static str>> {
        let mut renewed = Vec::new();
        for leaf in Leaf::ALL {
            let identity = self.identity(leaf)?;
            let authority = if leaf.is_front_proxy() { &self.front_proxy_ca } else { &self.ca };
            let reason = leaf.needs_renewal(
                &identity,
                &self.options,
                &authority.certificate,
                self.clock.now(),
            );
            let identity = match reason {
                None => identity,
                Some(reason) => {
                    tracing::info!(certificate = leaf.stem(), "renewing: {reason}");
                    renewed.push(leaf.stem());
                    self.issue(leaf)?
                }
            };
            match leaf {
                Leaf::Server => self.serving.set(&identity)?,
                Leaf::KubeletServer => self.kubelet_serving.set(&identity)?,
                _ => {}
            }
        }
        Ok(renewed)
    }

    /// Looks after the leaves for as long as the process runs.
    pub fn spawn_renewal(self: &Arc<Self>, tasks: &Tasks) {
        let this = self.clone();
        tasks.spawn("certificate-renewal", RESTART, move |stop| {
            let this = this.clone();
            async move {
                let mut ticks = tokio::time::interval(RENEWAL_CHECK_INTERVAL);
                loop {
                    tokio::select! {
                        _ = ticks.tick() => { this.renew()?; }
                        () = stop.cancelled() => return Ok(()),
                    }
                }
            }
        });
    }
}

/// Upstream's `sa.key` and `sa.pub`; ring makes no RSA keys, so P-256 (ES256).
fn open_signing_key(dir: &Path) -> Result<KeyPair> {
    let path = dir.join("sa.key");
    let key = match files::read(&path)? {
        Some(pem) => KeyPair::from_pem(&pem)
            .map_err(|error| Error::Malformed { path: path.clone(), why: error.to_string() })?,
        None => {
            let key = KeyPair::generate()?;
            files::write(&path, &key.serialize_pem())?;
            key
        }
    };
    if !key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
        let why = "must be an ECDSA P-256 key in PKCS#8".to_owned();
        return Err(Error::Malformed { path, why });
    }
    let public = dir.join("sa.pub");
    if files::read(&public)?.as_deref() != Some(key.public_key_pem().as_str()) {
        files::write(&public, &key.public_key_pem())?;
    }
    Ok(key)
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;
    use crate::stdx::clock::ManualClock;
    use std::os::unix::fs::PermissionsExt;

    /// A PKI in a directory of its own, on a clock that stands in 2026.
    pub fn temporary() -> (tempfile::TempDir, Arc<ManualClock>, Pki) {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
        let pki = Pki::open(options(dir.path()), clock.clone()).unwrap();
        (dir, clock, pki)
    }

    fn options(dir: &Path) -> Options {
        Options {
            dir: dir.join("pki"),
            hostname: "host".to_owned(),
            node_name: "node".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            service_ip: "10.43.0.1".parse().unwrap(),
            domain: "cluster.local".to_owned(),
            sans: vec!["example.org".to_owned()],
        }
    }

    #[test]
    fn what_was_made_is_found_again_and_only_the_owner_may_read_it() {
        let (dir, clock, pki) = temporary();
        let (ca, admin) = (pki.ca().pem().to_owned(), pki.identity(Leaf::Admin).unwrap());
        let again = Pki::open(options(dir.path()), clock).unwrap();
        assert_eq!(again.ca().pem(), ca);
        assert_eq!(again.identity(Leaf::Admin).unwrap(), admin);
        assert_eq!(again.signing_key_pkcs8(), pki.signing_key_pkcs8());
        for entry in std::fs::read_dir(dir.path().join("pki")).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }

    #[test]
    fn leaves_are_renewed_in_their_last_third_and_the_acceptor_gets_the_new_one() {
        let (_dir, clock, pki) = temporary();
        let before = pki.serving().current().unwrap().cert[0].clone();
        clock.advance(Duration::from_secs(240 * 86_400));
        assert_eq!(pki.renew().unwrap(), Vec::<&str>::new());
        clock.advance(Duration::from_secs(10 * 86_400));
        assert_eq!(pki.renew().unwrap().len(), Leaf::ALL.len());
        assert_ne!(pki.serving().current().unwrap().cert[0], before);
        assert_eq!(pki.renew().unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn a_new_name_renews_the_servers_certificate_alone() {
        let (dir, clock, _pki) = temporary();
        let mut wider = options(dir.path());
        wider.sans.push("10.9.8.7".to_owned());
        let pki = Pki::open(wider, clock).unwrap();
        let identity = pki.identity(Leaf::Server).unwrap();
        let der = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        let text = format!("{:?}", names.value.general_names);
        for name in ["example.org", "kubernetes.default.svc.cluster.local", "localhost"] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(text.contains("[10, 9, 8, 7]"), "{text}");
        assert_eq!(pki.renew().unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn a_certificate_without_its_key_is_refused_and_a_key_alone_makes_the_same_authority() {
        let (dir, clock, pki) = temporary();
        let admin = pki.identity(Leaf::Admin).unwrap();
        std::fs::remove_file(dir.path().join("pki/ca.crt")).unwrap();
        let again = Pki::open(options(dir.path()), clock.clone()).unwrap();
        assert_eq!(again.identity(Leaf::Admin).unwrap(), admin);
        std::fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
        let error = Pki::open(options(dir.path()), clock).err().unwrap();
        assert!(matches!(error, Error::HalfPair(path) if path.ends_with("ca.crt")));
    }
}
