//! OpenAPI documents, v2 and v3.
use super::body::Reply;
use super::chain::Incoming;
use super::server::Api;
use crate::object::status::Result;

/// The documents, made when first asked for.
#[derive(Default)]
pub struct OpenApi {}

/// Answers what is an OpenAPI path; `None` for others.
pub fn answer(_api: &Api, _incoming: &Incoming) -> Option<Result<Reply>> {
    None
}
