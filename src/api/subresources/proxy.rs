//! Being built.
use crate::api::{body::Reply, handlers::Request, server::Call};
use crate::object::status::{Result, Status};
/// x
pub async fn handle(_call: &Call, _request: &mut Request) -> Result<Reply> {
    Err(Status::no_such_path())
}
