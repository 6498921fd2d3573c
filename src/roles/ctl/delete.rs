//! `ctl delete`: deletes, then waits by watch until the objects are gone.
//!
//! Why it waits: "deleted" should mean that the name is free; `--wait=false` asks only.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::errors::InFile;
use super::files::Files;
use super::resources::{Choice, Found};
use super::session::Session;
use super::{follow, output, resources, wait};
use crate::client::{Client, DeleteOptions, Propagation};
use crate::object::status::Status;
use crate::object::{Value, meta};

/// Delete objects
#[derive(Args, Clone, Debug)]
pub struct Delete {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
    /// All objects of the kind
    #[arg(long, conflicts_with_all = ["selector", "field_selector"])]
    all: bool,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Seconds an object gets to end; -1 for its own, 0 with --force only, 1 at least otherwise
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Remove from the API at once
    #[arg(long)]
    force: bool,
    /// What becomes of dependents
    #[arg(long, value_enum, default_value_t = Cascade::Background, num_args = 0..=1,
          default_missing_value = "background", require_equals = true)]
    cascade: Cascade,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// Wait no longer than this; 0 for no limit
    #[arg(long, default_value = "0s", value_parser = follow::duration)]
    timeout: Duration,
    /// A missing object is no error
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ignore_not_found: Option<bool>,
    /// Do as if now were said: a grace period of 1
    #[arg(long, conflicts_with_all = ["force", "grace_period"])]
    now: bool,
    /// server: check everything, delete nothing
    #[arg(long, value_name = "server", value_parser = ["server"])]
    dry_run: Option<String>,
    /// name: print only what was deleted
    #[arg(long, short = 'o', value_name = "name", value_parser = ["name"])]
    output: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

impl Delete {
    fn options(&self) -> anyhow::Result<DeleteOptions> {
        anyhow::ensure!(
            !(self.force && self.grace_period > 0),
            "--force and --grace-period greater than 0 cannot be specified together"
        );
        let grace = match (self.force, self.now, self.grace_period) {
            (true, ..) => Some(0),
            (_, true, _) => Some(1),
            // Only --force takes an object away before its node has let go of it.
            (_, _, 0) => Some(1),
            (_, _, seconds) if seconds < 0 => None,
            (_, _, seconds) => Some(seconds),
        };
        if grace == Some(0) {
            eprintln!(
                "Warning: Immediate deletion does not wait for confirmation that the running \
                 resource has been terminated. The resource may continue to run on the cluster \
                 indefinitely."
            );
        }
        Ok(DeleteOptions {
            grace_period_seconds: grace,
            propagation: Some(match self.cascade {
                Cascade::Background => Propagation::Background,
                Cascade::Foreground => Propagation::Foreground,
                Cascade::Orphan => Propagation::Orphan,
            }),
            dry_run: self.dry_run.is_some(),
            ..DeleteOptions::default()
        })
    }

    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let options = self.options()?;
        let ignore = self.ignore_not_found.unwrap_or(self.all);
        let mut code = 0;
        let mut deleted = Vec::new();
        for found in self.find(session).await? {
            let target = session.target(found.kind, &found.namespace, &found.name);
            match session.http.delete(&target, &options).await {
                Ok(answer) => {
                    self.tell(&found, options.grace_period_seconds == Some(0))?;
                    deleted.push((found, uid(&answer)));
                }
                Err(error) if ignore && error.is_not_found() => {}
                Err(error) => {
                    code = super::super::EXIT_FAILURE;
                    eprintln!("{}", refusal(&found, error));
                }
            }
        }
        if deleted.is_empty() && code == 0 {
            output::print("No resources found\n")?;
        }
        if !self.wait || options.dry_run {
            return Ok(code);
        }
        let wait = async {
            for (found, uid) in &deleted {
                wait::gone(session, found, uid).await?;
            }
            anyhow::Ok(())
        };
        match self.timeout.is_zero() {
            true => wait.await?,
            false => match tokio::time::timeout(self.timeout, wait).await {
                Ok(result) => result?,
                Err(_) => anyhow::bail!("timed out waiting for the condition"),
            },
        }
        Ok(code)
    }

    /// What to delete. What is named need not be there: the delete itself says so.
    async fn find<'s>(&self, session: &'s Session) -> anyhow::Result<Vec<Found<'s>>> {
        if !self.files.filename.is_empty() {
            anyhow::ensure!(self.choice.words.is_empty(), "name objects or files, not both");
            return resources::from_files(session, &self.files).await;
        }
        if !self.choice.has_names() {
            return self.choice.find(session, &self.files, self.all, self.all_namespaces).await;
        }
        anyhow::ensure!(
            self.choice.selector.is_empty() && !self.all,
            "name cannot be provided when a selector or --all is specified"
        );
        let parts = resources::parts(session, &self.choice.words).await?;
        let named = parts.into_iter().filter_map(|part| match part {
            resources::Part::One(kind, name) => Some(Found {
                kind,
                namespace: match kind.namespaced {
                    true => session.namespace.clone(),
                    false => String::new(),
                },
                name,
                object: Value::Null,
                file: String::new(),
            }),
            resources::Part::All(_) => None,
        });
        Ok(named.collect())
    }

    fn tell(&self, found: &Found, forced: bool) -> anyhow::Result<()> {
        if self.output.is_some() {
            return output::print(&format!("{}\n", found.named()));
        }
        let how = if forced { "force deleted" } else { "deleted" };
        let from = match found.kind.namespaced {
            true => format!(" from {} namespace", found.namespace),
            false => String::new(),
        };
        let note = if self.dry_run.is_some() { " (server dry run)" } else { "" };
        output::print(&format!("{} {:?} {how}{from}{note}\n", found.kind.label(), found.name))
    }
}

/// The uid in a delete's answer, which is a Status or the ending object.
fn uid(answer: &Value) -> String {
    match meta::text(answer, &["details", "uid"]) {
        "" => meta::uid(answer).to_owned(),
        uid => uid.to_owned(),
    }
}

fn refusal(found: &Found, status: Status) -> String {
    if found.file.is_empty() {
        return super::errors::of_status(&status, &status.message);
    }
    let in_file = InFile { verb: "deleting", source_name: found.file.clone(), status };
    super::errors::of_status(&in_file.status, &in_file.to_string())
}
