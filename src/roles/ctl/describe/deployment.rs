//! A Deployment with its ReplicaSets.
//!
//! Why they are shown: they are where an update that hangs can be seen to hang.

use super::page::{Page, items, number, plain, text, when};
use super::pod;
use crate::client::ListOptions;
use crate::object::{Value, meta};
use crate::roles::ctl::pods;
use crate::roles::ctl::session::Session;

const REVISION: &str = "deployment.kubernetes.io/revision";

/// A Deployment.
pub async fn describe(session: &Session, object: &Value) -> anyhow::Result<Page> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let selector = pods::selector(&spec["selector"]);
    let mut page = Page::default();
    page.field(0, "Name", meta::name(object));
    page.field(0, "Namespace", meta::namespace(object));
    let created = when(meta::text(object, &["metadata", "creationTimestamp"]));
    page.field(0, "CreationTimestamp", created);
    page.pairs("Labels", meta::at(object, &["metadata", "labels"]), "=");
    page.annotations(meta::at(object, &["metadata", "annotations"]));
    page.field(0, "Selector", &selector);
    let count = |field: &str| number(status, &[field]);
    let replicas = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        number(spec, &["replicas"]),
        count("updatedReplicas"),
        count("replicas"),
        count("availableReplicas"),
        count("unavailableReplicas")
    );
    page.field(0, "Replicas", replicas);
    page.field(0, "StrategyType", meta::text(spec, &["strategy", "type"]));
    page.field(0, "MinReadySeconds", number(spec, &["minReadySeconds"]));
    if let Some(rolling) = meta::at(spec, &["strategy", "rollingUpdate"]) {
        let (down, up) = (plain(&rolling["maxUnavailable"]), plain(&rolling["maxSurge"]));
        let text = format!("{down} max unavailable, {up} max surge");
        page.field(0, "RollingUpdateStrategy", text);
    }
    pod::put_template(&mut page, &spec["template"]);
    let mut conditions = items(status, &["conditions"]).peekable();
    if conditions.peek().is_some() {
        page.put(0, "Conditions:\n  Type\tStatus\tReason");
        page.put(1, "----\t------\t------");
        for one in conditions {
            let [kind, state, reason] = ["type", "status", "reason"].map(|field| text(one, field));
            page.put(1, &format!("{kind} \t{state}\t{reason}"));
        }
    }
    let (old, new) = replica_sets(session, object, selector).await?;
    if !old.is_empty() || !new.is_empty() {
        page.field(0, "OldReplicaSets", sets(&old));
        page.field(0, "NewReplicaSet", sets(&new));
    }
    Ok(page)
}

async fn replica_sets(
    session: &Session,
    object: &Value,
    selector: String,
) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let kind = session.kind("replicasets.apps").await?;
    let target = session.target(kind, meta::namespace(object), "");
    let options = ListOptions { label_selector: selector, ..ListOptions::default() };
    let (sets, _) = session.list(kind, &target, &options).await?;
    let revision = |of: &Value| meta::text(of, &["metadata", "annotations", REVISION]).to_owned();
    let now = revision(object);
    let owned = sets.into_iter().filter(|set| {
        meta::controller_of(set).is_some_and(|owner| text(owner, "uid") == meta::uid(object))
    });
    Ok(owned.partition(|set| revision(set) != now))
}

fn sets(sets: &[Value]) -> String {
    let told = sets.iter().map(|set| {
        let (have, want) =
            (number(set, &["status", "replicas"]), number(set, &["spec", "replicas"]));
        format!("{} ({have}/{want} replicas created)", meta::name(set))
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "<none>".to_owned() } else { told.join(", ") }
}
