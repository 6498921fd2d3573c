//! `ctl version`.
//!
//! Why both: what a client may ask for depends on the server's.

use clap::Args;

use super::output;
use super::session::Session;
use crate::object::meta;

/// Print the versions of client and server
#[derive(Args, Clone, Debug)]
pub struct Version {
    /// Ask no server
    #[arg(long)]
    client: bool,
}

impl Version {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let client = crate::api::server::git_version();
        output::print(&format!("Client Version: {client}\n"))?;
        if !self.client {
            let server = session.json("/version", "application/json").await?;
            output::print(&format!("Server Version: {}\n", meta::text(&server, &["gitVersion"])))?;
        }
        Ok(0)
    }
}
