//! `ctl scale`: by the `scale` subresource, which is the same for every kind that has one.
//!
//! Why not a patch of the object: custom resources keep their replicas where they like.

use clap::Args;
use serde_json::json;

use super::files::Files;
use super::output;
use super::resources::Choice;
use super::session::Session;
use crate::client::{Client, PatchKind, WriteOptions};
use crate::object::meta;

/// Set the number of replicas
#[derive(Args, Clone, Debug)]
pub struct Scale {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
    /// The number
    #[arg(long, value_name = "COUNT")]
    replicas: u32,
    /// Only if there are this many now
    #[arg(long, value_name = "COUNT")]
    current_replicas: Option<i64>,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
}

impl Scale {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let found = self.choice.find(session, &self.files, self.all, false).await?;
        anyhow::ensure!(!found.is_empty(), "no objects passed to scale");
        for one in found {
            anyhow::ensure!(
                one.kind.subresources.iter().any(|sub| sub == "scale"),
                "{} cannot be scaled",
                one.kind.gvr.group_resource()
            );
            let target = session.target(one.kind, &one.namespace, &one.name).sub("scale");
            let mut patch = json!({"spec": {"replicas": self.replicas}});
            if let Some(expected) = self.current_replicas {
                let scale = session.get(&target).await?;
                let now = meta::at(&scale, &["spec", "replicas"]).and_then(|now| now.as_i64());
                let now = now.unwrap_or(0);
                anyhow::ensure!(now == expected, "Expected replicas to be {expected}, was {now}");
                // What was looked at must be what is changed.
                meta::set(
                    &mut patch,
                    &["metadata", "resourceVersion"],
                    meta::resource_version(&scale),
                );
            }
            let options = WriteOptions { field_manager: "kubectl".into(), ..Default::default() };
            session.http.patch(&target, PatchKind::Merge, patch, &options).await?;
            output::print(&format!("{} scaled\n", one.named()))?;
        }
        Ok(0)
    }
}
