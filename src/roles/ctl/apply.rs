//! `ctl apply`: always server-side.
//!
//! Why only so: the server owns merging and conflicts; a client that merges by an annotation would
//! be a second, weaker copy of that. The field manager is kubectl's, so that both may take turns.

use clap::Args;

use super::files::Files;
use super::resources::{self, Found};
use super::session::Session;
use super::{errors, output};
use crate::client::{Client, PatchKind, WriteOptions};
use crate::object::status::Status;
use crate::object::{Value, meta};

/// Bring objects to what a file says (server-side apply)
#[derive(Args, Clone, Debug)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// The way it works in any case; for those used to saying it
    #[arg(long)]
    server_side: bool,
    /// Take over fields that others manage
    #[arg(long)]
    force_conflicts: bool,
    /// server: check everything, store nothing
    #[arg(long, value_name = "server", value_parser = ["server"])]
    dry_run: Option<String>,
    /// Who applies, for managedFields
    #[arg(long, value_name = "NAME", default_value = "kubectl")]
    field_manager: String,
}

impl Apply {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        anyhow::ensure!(!self.files.filename.is_empty(), "must specify -f");
        let options = WriteOptions {
            dry_run: self.dry_run.is_some(),
            field_manager: self.field_manager.clone(),
            force: self.force_conflicts,
            field_validation: "Strict".to_owned(),
        };
        let note = if self.dry_run.is_some() { " (server dry run)" } else { "" };
        let mut code = 0;
        for found in resources::from_files(session, &self.files).await? {
            match apply(session, &found, &options).await {
                Ok(_) => output::print(&format!("{} serverside-applied{note}\n", found.named()))?,
                Err(status) => {
                    code = super::super::EXIT_FAILURE;
                    eprintln!("{}", refusal(&status));
                }
            }
        }
        Ok(code)
    }
}

async fn apply(
    session: &Session,
    found: &Found<'_>,
    options: &WriteOptions,
) -> Result<Value, Status> {
    if found.name.is_empty() {
        let text = "metadata.name is required; objects with generateName are made by create";
        return Err(Status::bad_request(text));
    }
    let mut object = found.object.clone();
    // What a `get -o yaml` left in the file is no one's to apply.
    meta::remove(&mut object, &["metadata", "managedFields"]);
    let target = session.target(found.kind, &found.namespace, &found.name);
    session.http.patch(&target, PatchKind::Apply, object, options).await
}

fn refusal(status: &Status) -> String {
    if !status.is_conflict() {
        return errors::of_status(status, &status.message);
    }
    format!(
        "error: {}\nPlease review the fields above--they currently have other managers. Use \
         --force-conflicts to take them over, or change the file to agree with them.",
        status.message
    )
}
