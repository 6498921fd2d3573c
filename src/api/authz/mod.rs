//! May they? The first authorizer that has an opinion decides.

use async_trait::async_trait;

use super::context::Attributes;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, for this reason.
    Allow(String),
    /// No, and nobody else is asked.
    Deny(String),
    /// Not mine to say; the reason is shown when nobody allows.
    NoOpinion(String),
}

/// Decides who may do what.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides on one request.
    async fn authorize(&self, what: &Attributes) -> Decision;
}
