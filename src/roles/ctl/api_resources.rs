//! `ctl api-resources`.
//!
//! Why: the names that every other verb takes are these.

use clap::Args;

use super::kinds::Kind;
use super::output::{self, Columns};
use super::session::Session;

/// List the kinds that the server knows
#[derive(Args, Clone, Debug)]
pub struct ApiResources {
    /// Only kinds that live in a namespace, or with =false those that do not
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
    /// Only of this group; "" is the core group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Only kinds with all of these verbs
    #[arg(long, value_name = "VERB", value_delimiter = ',')]
    verbs: Vec<String>,
    /// wide or name
    #[arg(long, short = 'o', value_name = "FORM", value_parser = ["wide", "name"])]
    output: Option<String>,
    /// Leave the heading out
    #[arg(long)]
    no_headers: bool,
}

impl ApiResources {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let mut kinds: Vec<&Kind> = Vec::new();
        for kind in session.kinds().await? {
            let wanted = self.namespaced.is_none_or(|is| is == kind.namespaced)
                && self.api_group.as_ref().is_none_or(|group| *group == kind.gvr.group)
                && self.verbs.iter().all(|verb| kind.verbs.contains(verb));
            let known = kinds.iter().any(|known| {
                known.gvr.group == kind.gvr.group && known.gvr.resource == kind.gvr.resource
            });
            // A group's first version that has it is the preferred one.
            if wanted && !known {
                kinds.push(kind);
            }
        }
        kinds.sort_by_key(|kind| (&kind.gvr.group, &kind.gvr.resource));
        if self.output.as_deref() == Some("name") {
            let names = kinds.iter().map(|kind| kind.gvr.group_resource() + "\n");
            output::print(&names.collect::<String>())?;
            return Ok(0);
        }
        let wide = self.output.is_some();
        let mut rows = Vec::new();
        if !self.no_headers {
            let names = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
            let more: &[&str] = if wide { &["VERBS", "CATEGORIES"] } else { &[] };
            rows.push(names.iter().chain(more).map(|&name| name.to_owned()).collect());
        }
        for kind in kinds {
            let mut row = vec![
                kind.gvr.resource.clone(),
                kind.short.join(","),
                kind.gvr.group_version().to_string(),
                kind.namespaced.to_string(),
                kind.kind.clone(),
            ];
            if wide {
                row.extend([kind.verbs.join(","), kind.categories.join(",")]);
            }
            rows.push(row);
        }
        output::print(&Columns::default().lines(&rows))?;
        Ok(0)
    }
}
