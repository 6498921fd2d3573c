//! The leaf certificates as a table: whose they are, what they name, when they are renewed.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{BACKDATE, Options, Result};

/// How long a leaf is valid.
pub(super) const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// A leaf is renewed when less than its life divided by this is left.
const RENEW_BELOW_FRACTION: i64 = 3;

/// A certificate and its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Identity(elided)")
    }
}

/// The leaf certificates of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// What the API server shows its clients.
    Server,
    /// What the API server shows kubelets (a client certificate).
    KubeletClient,
    /// The administrator.
    Admin,
    /// This machine's kubelet, as a client: `system:node:NAME`.
    Node,
    /// What this machine's kubelet shows those who connect to it.
    KubeletServer,
    /// What the API server shows aggregated API servers.
    FrontProxy,
}

impl Leaf {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Server,
        Self::KubeletClient,
        Self::Admin,
        Self::Node,
        Self::KubeletServer,
        Self::FrontProxy,
    ];

    /// The name of its files, without the ending.
    pub const fn stem(self) -> &'static str {
        match self {
            Self::Server => "apiserver",
            Self::KubeletClient => "apiserver-kubelet-client",
            Self::Admin => "admin",
            Self::Node => "kubelet",
            Self::KubeletServer => "kubelet-server",
            Self::FrontProxy => "front-proxy-client",
        }
    }

    /// Whether the front-proxy CA signs it.
    pub(super) const fn is_front_proxy(self) -> bool {
        matches!(self, Self::FrontProxy)
    }

    const fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::KubeletServer)
    }

    /// (common name, organization).
    fn subject(self, options: &Options) -> (String, &'static str) {
        let node = || format!("system:node:{}", options.node_name);
        match self {
            Self::Server => ("kube-apiserver".to_owned(), ""),
            Self::KubeletClient => ("kube-apiserver-kubelet-client".to_owned(), "system:masters"),
            Self::Admin => ("kubernetes-admin".to_owned(), "system:masters"),
            Self::Node | Self::KubeletServer => (node(), "system:nodes"),
            Self::FrontProxy => ("front-proxy-client".to_owned(), ""),
        }
    }

    /// The names and addresses that a server's certificate covers.
    fn names(self, options: &Options) -> Vec<String> {
        let mut names = vec![options.hostname.clone(), "localhost".to_owned()];
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        names.extend(options.addresses.iter().map(ToString::to_string));
        match self {
            Self::Server => {
                names.push(options.service_ip.to_string());
                names.extend(
                    ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                        .map(str::to_owned),
                );
                names.push(format!("kubernetes.default.svc.{}", options.domain));
                names.extend(options.sans.iter().cloned());
            }
            Self::KubeletServer => names.push(options.node_name.clone()),
            _ => names.clear(),
        }
        let mut unique: Vec<String> = Vec::new();
        for name in names {
            if !name.is_empty() && !unique.contains(&name) {
                unique.push(name);
            }
        }
        unique
    }

    /// What to put into a new certificate.
    pub(super) fn params(self, options: &Options, now: Timestamp) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        for name in self.names(options) {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        set_life(&mut params, now, LEAF_LIFE);
        let (common_name, organization) = self.subject(options);
        params.distinguished_name = DistinguishedName::new();
        if !organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![if self.is_server() {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// Why a certificate must be made anew, if it must.
    pub(super) fn needs_renewal(
        self,
        identity: &Identity,
        options: &Options,
        authority: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Option<String> {
        let Ok(der) = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()) else {
            return Some("it is not a certificate".to_owned());
        };
        let parsed = x509_parser::parse_x509_certificate(&der);
        let issuer = x509_parser::parse_x509_certificate(authority);
        let (Ok((_, certificate)), Ok((_, issuer))) = (parsed, issuer) else {
            return Some("it is not a certificate".to_owned());
        };
        if certificate.verify_signature(Some(issuer.public_key())).is_err() {
            return Some("another authority signed it".to_owned());
        }
        let key = rcgen::KeyPair::from_pem(&identity.key_pem);
        let spki = key.map(|key| rcgen::PublicKeyData::subject_public_key_info(&key));
        if spki.ok().as_deref() != Some(certificate.public_key().raw) {
            return Some("its key is another".to_owned());
        }
        let validity = certificate.validity();
        let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if end - now.as_second() < (end - start) / RENEW_BELOW_FRACTION {
            return Some("it ends soon".to_owned());
        }
        let (common_name, _) = self.subject(options);
        let subject = certificate.subject();
        let named = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        if named != Some(common_name.as_str()) {
            return Some(format!("it is not {common_name}'s"));
        }
        let covered = names_of(&certificate);
        let missing = self.names(options).into_iter().find(|name| !covered.contains(name));
        missing.map(|name| format!("it does not name {name}"))
    }
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// Sets how long a certificate is valid.
pub(super) fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let start = now.as_second() - BACKDATE.as_secs() as i64;
    let at = |second: i64| OffsetDateTime::from_unix_timestamp(second).ok();
    if let (Some(start), Some(end)) = (at(start), at(start + life.as_secs() as i64)) {
        params.not_before = start;
        params.not_after = end;
    }
}

/// Whether a certificate is a CA's and has this key.
pub(super) fn check_pair(
    certificate: &CertificateDer<'_>,
    spki: &[u8],
) -> std::result::Result<(), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("not a certificate: {error}"))?;
    if !parsed.is_ca() {
        return Err("not a certificate authority".to_owned());
    }
    if parsed.public_key().raw != spki {
        return Err("the key does not belong to the certificate".to_owned());
    }
    Ok(())
}
