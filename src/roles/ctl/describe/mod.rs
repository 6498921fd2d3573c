//! `ctl describe`: one object with what surrounds it, in kubectl's layout for the kinds that are
//! looked at most, as YAML for the rest; its events at the end.
//!
//! Why not Tables: what is shown comes from several objects, which only a client puts together.

mod deployment;
mod node;
pub mod page;
mod pod;
mod service;

use clap::Args;

use super::files::Files;
use super::resources::{Choice, Found};
use super::session::Session;
use super::{events, output};
use crate::client::ListOptions;
use crate::object::schema::encode;
use crate::object::{Value, meta};
use page::{Page, since, text};

pub use pod::template;

/// Show an object in detail, with its events
#[derive(Args, Clone, Debug)]
pub struct Describe {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Show the events
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    show_events: bool,
}

impl Describe {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let all = !self.choice.has_names();
        let found = self.choice.find(session, &self.files, all, self.all_namespaces).await?;
        for (at, one) in found.iter().enumerate() {
            let object = &one.object;
            let mut page = match one.kind.label().as_str() {
                "pod" => pod::describe(object),
                "node" => node::describe(session, object).await?,
                "service" => service::describe(session, object).await?,
                "deployment.apps" => deployment::describe(session, object).await?,
                _ => generic(object),
            };
            if self.show_events {
                tell_events(&mut page, of(session, one, object).await?);
            }
            let between = if at > 0 { "\n\n" } else { "" };
            output::print(&format!("{between}{}", page.text()))?;
        }
        if found.is_empty() {
            eprintln!("No resources found in {} namespace.", session.namespace);
        }
        Ok(0)
    }
}

/// An object's events, oldest first.
async fn of(session: &Session, found: &Found<'_>, object: &Value) -> anyhow::Result<Vec<Value>> {
    let mut fields =
        format!("involvedObject.kind={},involvedObject.name={}", found.kind.kind, found.name);
    // A node's events carry its name as uid, and those of kinds without a namespace lie in any.
    if found.kind.namespaced {
        fields.push_str(&format!(",involvedObject.uid={}", meta::uid(object)));
    }
    let kind = session.kind("events").await?;
    let target = session.target(kind, &found.namespace, "");
    let options = ListOptions { field_selector: fields, ..ListOptions::default() };
    let (mut all, _) = session.list(kind, &target, &options).await?;
    all.sort_by(|a, b| events::last_seen(a).cmp(events::last_seen(b)));
    Ok(all)
}

fn tell_events(page: &mut Page, events: Vec<Value>) {
    if events.is_empty() {
        page.put(0, "Events:\t<none>");
        return;
    }
    page.new_columns();
    page.put(0, "Events:");
    page.put(1, "Type\tReason\tAge\tFrom\tMessage");
    page.put(1, "----\t------\t----\t----\t-------");
    for event in &events {
        let first = match text(event, "eventTime") {
            "" => since(text(event, "firstTimestamp")),
            time => since(time),
        };
        let count = meta::at(event, &["count"]).and_then(Value::as_i64).unwrap_or(0);
        let series = meta::at(event, &["series", "count"]).and_then(Value::as_i64);
        let age = match series {
            Some(count) => {
                let last = since(meta::text(event, &["series", "lastObservedTime"]));
                format!("{last} (x{count} over {first})")
            }
            None if count > 1 => {
                format!("{} (x{count} over {first})", since(text(event, "lastTimestamp")))
            }
            None => first,
        };
        let source = match meta::text(event, &["source", "component"]) {
            "" => text(event, "reportingComponent"),
            source => source,
        };
        let message = text(event, "message").trim();
        let message = match meta::text(event, &["involvedObject", "fieldPath"]) {
            "" => message.to_owned(),
            path => format!("{path}: {message}"),
        };
        let (of, reason) = (text(event, "type"), text(event, "reason"));
        page.put(1, &format!("{of}\t{reason}\t{age}\t{source}\t{message}"));
    }
}

/// Any other kind: the heading, then the rest as YAML.
fn generic(object: &Value) -> Page {
    let mut page = Page::default();
    page.put(0, &format!("Name:\t{}", meta::name(object)));
    if !meta::namespace(object).is_empty() {
        page.put(0, &format!("Namespace:\t{}", meta::namespace(object)));
    }
    page.pairs("Labels", meta::at(object, &["metadata", "labels"]), "=");
    page.annotations(meta::at(object, &["metadata", "annotations"]));
    page.put(0, &format!("API Version:\t{}", text(object, "apiVersion")));
    page.put(0, &format!("Kind:\t{}", text(object, "kind")));
    page.new_columns();
    let mut rest = object.clone();
    for shown in ["apiVersion", "kind"] {
        meta::remove(&mut rest, &[shown]);
    }
    for shown in ["managedFields", "labels", "annotations", "name", "namespace"] {
        meta::remove(&mut rest, &["metadata", shown]);
    }
    // A secret stays one on a screen that others see.
    if text(object, "kind") == "Secret"
        && let Some(data) = rest.get_mut("data").and_then(Value::as_object_mut)
    {
        for value in data.values_mut() {
            use base64::Engine as _;
            let bytes = value.as_str().unwrap_or("").as_bytes();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes);
            *value = format!("{} bytes", bytes.map_or(0, |bytes| bytes.len())).into();
        }
    }
    for line in encode::yaml(&rest).lines() {
        page.put(0, line);
    }
    page.new_columns();
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "namespace": "n"}, "data": {"key": "aGVsbG8="}});
        let text = generic(&secret).text();
        assert!(text.contains("key: 5 bytes") && !text.contains("aGVsbG8"), "{text}");
    }
}
