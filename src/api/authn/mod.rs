//! Who is it? Credentials become a [`User`], or 401.

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use crate::client::User;
use crate::object::status::Result;

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
