//! Answers that are computed and never stored: review kinds, and token requests on an object.
//!
//! Why traits: what they compute belongs to authentication and authorization; the generic handlers
//! only decode the body, authorize the request, run admission and encode the answer.

use async_trait::async_trait;
use jiff::Timestamp;

use super::context::{Attributes, RequestContext};
use super::storage::Lookup;
use crate::object::Value;
use crate::object::status::Result;

/// What such an answer may be computed from.
pub struct Asked<'a> {
    /// Who asks for what.
    pub attributes: &'a Attributes,
    /// The request.
    pub request: &'a RequestContext,
    /// The store, as it is now.
    pub view: &'a dyn Lookup,
    /// Now.
    pub now: Timestamp,
    /// Nothing may be changed.
    pub dry_run: bool,
}

/// A kind that can only be created and is not stored (TokenReview, SubjectAccessReview, …).
#[async_trait]
pub trait CreateOnly: Send + Sync {
    /// Answers with the object, its `status` filled in.
    async fn create(&self, asked: &Asked<'_>, object: Value) -> Result<Value>;
}

/// A subresource of a stored object that takes a POST and stores nothing itself
/// (`serviceaccounts/token`).
#[async_trait]
pub trait PostOnly: Send + Sync {
    /// Answers the POST of `body` to a subresource of `parent`.
    async fn post(&self, asked: &Asked<'_>, parent: &Value, body: Value) -> Result<Value>;
}
