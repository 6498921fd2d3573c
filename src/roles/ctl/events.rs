//! `ctl events`: what happened, oldest first, from the server's Table.
//!
//! Why sorted here: a list comes in the order of names; a story is told in the order of time.

use clap::Args;

use super::output::{self, Columns, Header, Show};
use super::session::Session;
use crate::client::ListOptions;
use crate::client::http::list_path;
use crate::object::{Value, meta};

/// Print what happened lately
#[derive(Args, Clone, Debug)]
pub struct Events {
    /// Only of this object, as in pod/web-1
    #[arg(long = "for", value_name = "TYPE/NAME")]
    of: Option<String>,
    /// Only of these types: Normal, Warning
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Leave the heading out
    #[arg(long)]
    no_headers: bool,
}

/// When an event was seen last.
pub fn last_seen(event: &Value) -> &str {
    let places: [&[&str]; 4] = [
        &["series", "lastObservedTime"],
        &["lastTimestamp"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ];
    let mut times = places.into_iter().map(|place| meta::text(event, place));
    times.find(|time| !time.is_empty()).unwrap_or("")
}

impl Events {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let kind = session.kind("events").await?;
        let mut options = ListOptions::default();
        if let Some(of) = &self.of {
            let (word, name) = of
                .split_once('/')
                .ok_or_else(|| anyhow::anyhow!("--for must be in resource/name form"))?;
            let of = session.kind(word).await?;
            options.field_selector =
                format!("involvedObject.kind={},involvedObject.name={name}", of.kind);
        }
        let namespace = if self.all_namespaces { "" } else { session.namespace.as_str() };
        let target = session.target(kind, namespace, "");
        let path = list_path(&target, &options, false);
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}includeObject=Object");
        let mut table = session.json(&path, super::get::TABLE).await?;
        let show = Show { namespace: self.all_namespaces, ..Show::default() };
        if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
            let wanted = |row: &Value| {
                let of = meta::text(row, &["object", "type"]);
                self.types.is_empty() || self.types.iter().any(|one| one.eq_ignore_ascii_case(of))
            };
            rows.retain(wanted);
            rows.sort_by(|a, b| last_seen(&a["object"]).cmp(last_seen(&b["object"])));
        }
        let header = Header::of(&table, show).unwrap_or_default();
        let mut lines = header.rows(&table, kind, show);
        if lines.is_empty() {
            match self.all_namespaces {
                true => eprintln!("No events found."),
                false => eprintln!("No events found in {} namespace.", session.namespace),
            }
            return Ok(0);
        }
        if !self.no_headers {
            lines.insert(0, header.cells(show));
        }
        output::print(&Columns::default().lines(&lines))?;
        Ok(0)
    }
}
