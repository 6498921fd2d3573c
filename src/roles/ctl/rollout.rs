//! `ctl rollout`: status, history, undo, restart, pause, resume.
//!
//! Why history and undo know Deployments only: theirs is told by ReplicaSets; other kinds keep
//! ControllerRevisions, which are refused in words until they are read here.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::describe::page::{Page, or_none};
use super::files::Files;
use super::follow::{self, Follow, Seen};
use super::resources::{Choice, Found};
use super::session::Session;
use super::{describe, output, pods};
use crate::client::{Client, ListOptions, PatchKind, WriteOptions};
use crate::object::{Gvr, Map, Value, meta, time};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations that an undo leaves as the Deployment has them.
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// Follow, look back at, undo, restart, pause or resume a rollout
#[derive(Args, Clone, Debug)]
pub struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Follow a rollout to its end
    Status {
        #[command(flatten)]
        of: Of,
        /// Give up after this long; 0 never does
        #[arg(long, default_value = "0s", value_parser = follow::duration)]
        timeout: Duration,
        /// Say how it stands and end
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
              default_missing_value = "true", require_equals = true)]
        watch: bool,
    },
    /// List revisions, or show one
    History {
        #[command(flatten)]
        of: Of,
        /// The revision to show
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        of: Of,
        /// The revision; the one before the present when left out
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace all pods as an update would
    Restart(Of),
    /// Let changes wait
    Pause(Of),
    /// Let changes roll out
    Resume(Of),
}

/// Which objects.
#[derive(Args, Clone, Debug)]
struct Of {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
}

impl Rollout {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let (What::Status { of, .. }
        | What::History { of, .. }
        | What::Undo { of, .. }
        | What::Restart(of)
        | What::Pause(of)
        | What::Resume(of)) = &self.what;
        // A kind alone means all of it.
        let found = of.choice.find(session, &of.files, !of.choice.has_names(), false).await?;
        for one in &found {
            match &self.what {
                What::Status { timeout, watch, .. } => {
                    status(session, one, *timeout, *watch).await?;
                }
                What::History { revision, .. } => history(session, one, *revision).await?,
                What::Undo { to_revision, .. } => undo(session, one, *to_revision).await?,
                What::Restart(_) => restart(session, one).await?,
                What::Pause(_) => pause(session, one, true).await?,
                What::Resume(_) => pause(session, one, false).await?,
            }
        }
        Ok(0)
    }
}

fn number(object: &Value, path: &[&str]) -> i64 {
    meta::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// How a rollout stands: a line, and whether it is done. In kubectl's words.
fn standing(kind: &str, object: &Value) -> anyhow::Result<(String, bool)> {
    let name = meta::name(object);
    let status = |field: &str| number(object, &["status", field]);
    let replicas = meta::at(object, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(1);
    let seen = status("observedGeneration");
    let observed = meta::generation(object) <= seen && seen > 0;
    let rolling = meta::text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate";
    let (line, done) = match kind {
        "Deployment" if !observed => {
            ("Waiting for deployment spec update to be observed...".to_owned(), false)
        }
        "Deployment" => deployment_standing(object, replicas)?,
        "DaemonSet" | "StatefulSet" if !rolling => {
            anyhow::bail!("rollout status is only available for RollingUpdate strategy type")
        }
        "DaemonSet" if !observed => {
            ("Waiting for daemon set spec update to be observed...".to_owned(), false)
        }
        "DaemonSet" => {
            let begin = format!("Waiting for daemon set {name:?} rollout to finish:");
            let (wanted, updated) =
                (status("desiredNumberScheduled"), status("updatedNumberScheduled"));
            let available = status("numberAvailable");
            if updated < wanted {
                let text = format!("{updated} out of {wanted} new pods have been updated...");
                (format!("{begin} {text}"), false)
            } else if available < wanted {
                let text = format!("{available} of {wanted} updated pods are available...");
                (format!("{begin} {text}"), false)
            } else {
                (format!("daemon set {name:?} successfully rolled out"), true)
            }
        }
        "StatefulSet" if !observed => {
            ("Waiting for statefulset spec update to be observed...".to_owned(), false)
        }
        "StatefulSet" => stateful_standing(object, replicas),
        other => anyhow::bail!("no status viewer has been implemented for {other}"),
    };
    Ok((line, done))
}

fn deployment_standing(object: &Value, replicas: i64) -> anyhow::Result<(String, bool)> {
    let name = meta::name(object);
    let status = |field: &str| number(object, &["status", field]);
    let conditions = meta::at(object, &["status", "conditions"]).and_then(Value::as_array);
    let late = conditions.into_iter().flatten().any(|one| {
        meta::text(one, &["type"]) == "Progressing"
            && meta::text(one, &["reason"]) == "ProgressDeadlineExceeded"
    });
    anyhow::ensure!(!late, "deployment {name:?} exceeded its progress deadline");
    let (updated, all) = (status("updatedReplicas"), status("replicas"));
    let available = status("availableReplicas");
    let text = if updated < replicas {
        format!("{updated} out of {replicas} new replicas have been updated...")
    } else if all > updated {
        format!("{} old replicas are pending termination...", all - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available...")
    } else {
        return Ok((format!("deployment {name:?} successfully rolled out"), true));
    };
    Ok((format!("Waiting for deployment {name:?} rollout to finish: {text}"), false))
}

fn stateful_standing(object: &Value, replicas: i64) -> (String, bool) {
    let status = |field: &str| number(object, &["status", field]);
    let revision = |field: &str| meta::text(object, &["status", field]).to_owned();
    let (ready, updated) = (status("readyReplicas"), status("updatedReplicas"));
    if ready < replicas {
        return (format!("Waiting for {} pods to be ready...", replicas - ready), false);
    }
    let rolling = meta::at(object, &["spec", "updateStrategy", "rollingUpdate"]);
    if let Some(rolling) = rolling {
        let wanted = replicas - number(rolling, &["partition"]);
        let text = format!("{updated} new pods have been updated...");
        if updated < wanted {
            let text = format!("{updated} out of {wanted} new pods have been updated...");
            return (format!("Waiting for partitioned roll out to finish: {text}"), false);
        }
        return (format!("partitioned roll out complete: {text}"), true);
    }
    let (new, old) = (revision("updateRevision"), revision("currentRevision"));
    if new != old {
        let text = format!("{updated} pods at revision {new}...");
        return (format!("waiting for statefulset rolling update to complete {text}"), false);
    }
    let text = format!("{} pods at revision {old}...", status("currentReplicas"));
    (format!("statefulset rolling update complete {text}"), true)
}

async fn status(
    session: &Session,
    of: &Found<'_>,
    timeout: Duration,
    watch: bool,
) -> anyhow::Result<()> {
    let follow = Follow::one(session, of.kind, &of.namespace, &of.name);
    let mut said = String::new();
    let tell = |seen: Seen| match seen {
        Seen::Is(object) => {
            let (line, done) = standing(&of.kind.kind, &object)?;
            if line != said {
                output::print(&format!("{line}\n"))?;
                said = line;
            }
            Ok(if done || !watch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        }
        Seen::Listed if said.is_empty() => anyhow::bail!("object has been deleted"),
        Seen::Gone(_) => anyhow::bail!("object has been deleted"),
        Seen::Listed => Ok(ControlFlow::Continue(())),
    };
    let follow = follow.run(tell);
    if timeout.is_zero() {
        return follow.await;
    }
    let ended = tokio::time::timeout(timeout, follow).await;
    ended.map_err(|_| anyhow::anyhow!("timed out waiting for the condition"))?
}

/// The ReplicaSets of a Deployment with their revisions, oldest first.
async fn revisions(session: &Session, of: &Found<'_>) -> anyhow::Result<Vec<(i64, Value)>> {
    anyhow::ensure!(
        of.kind.label() == "deployment.apps",
        "the history of {} is not supported here; kubectl rollout has it",
        of.kind.gvr.resource
    );
    let kind = session.kind("replicasets.apps").await?;
    let target = session.target(kind, &of.namespace, "");
    let selector = pods::selector(&of.object["spec"]["selector"]);
    let options = ListOptions { label_selector: selector, ..ListOptions::default() };
    let (sets, _) = session.list(kind, &target, &options).await?;
    let owned = sets.into_iter().filter(|set| {
        let owner = meta::controller_of(set);
        owner.is_some_and(|owner| meta::text(owner, &["uid"]) == meta::uid(&of.object))
    });
    let numbered = owned.filter_map(|set| {
        let revision = meta::text(&set, &["metadata", "annotations", REVISION]);
        Some((revision.parse().ok()?, set))
    });
    let mut revisions: Vec<(i64, Value)> = numbered.collect();
    revisions.sort_by_key(|(revision, _)| *revision);
    Ok(revisions)
}

async fn history(session: &Session, of: &Found<'_>, revision: i64) -> anyhow::Result<()> {
    let revisions = revisions(session, of).await?;
    if revision > 0 {
        let found = revisions.iter().find(|(number, _)| *number == revision);
        let (_, set) =
            found.ok_or_else(|| anyhow::anyhow!("unable to find the specified revision"))?;
        let text = describe::template(&set["spec"]["template"]);
        return output::print(&format!("{} with revision #{revision}\n{text}\n", of.named()));
    }
    if revisions.is_empty() {
        return output::print(&format!("{} \nNo rollout history found.\n", of.named()));
    }
    let mut page = Page::default();
    page.put(0, "REVISION\tCHANGE-CAUSE");
    for (number, set) in &revisions {
        let cause = meta::text(set, &["metadata", "annotations", CHANGE_CAUSE]);
        page.put(0, &format!("{number}\t{}", or_none(cause)));
    }
    output::print(&format!("{} \n{}\n", of.named(), page.text()))
}

/// A pod template without the label that tells ReplicaSets apart.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    meta::remove(&mut template, &["metadata", "labels", HASH_LABEL]);
    template
}

/// The revision that an undo goes back to.
fn back_to<'r>(
    revisions: &'r [(i64, Value)],
    wanted: i64,
    name: &str,
) -> anyhow::Result<&'r Value> {
    if wanted != 0 {
        let found = revisions.iter().find(|(number, _)| *number == wanted);
        let missing = || anyhow::anyhow!("unable to find specified revision {wanted} in history");
        return Ok(&found.ok_or_else(missing)?.1);
    }
    match revisions {
        [.., (_, previous), _] => Ok(previous),
        _ => anyhow::bail!("no rollout history found for deployment {name:?}"),
    }
}

async fn undo(session: &Session, of: &Found<'_>, wanted: i64) -> anyhow::Result<()> {
    let revisions = revisions(session, of).await?;
    let set = back_to(&revisions, wanted, &of.name)?;
    anyhow::ensure!(
        of.object["spec"]["paused"] != json!(true),
        "you cannot rollback a paused deployment; resume it first with 'rollout resume' and try \
         again"
    );
    let template = without_hash(&set["spec"]["template"]);
    if template == without_hash(&of.object["spec"]["template"]) {
        let why = format!("(current template already matches revision {wanted})");
        return output::print(&format!("{} skipped rollback {why}\n", of.named()));
    }
    let mut annotations = Map::new();
    let own = meta::annotations(&of.object).into_iter().flatten();
    annotations.extend(
        own.filter(|(name, _)| KEPT.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let old = meta::annotations(set).into_iter().flatten();
    annotations.extend(
        old.filter(|(name, _)| !KEPT.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let patch = json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ]);
    write(session, of, PatchKind::Json, patch).await?;
    output::print(&format!("{} rolled back\n", of.named()))
}

async fn write(
    session: &Session,
    of: &Found<'_>,
    kind: PatchKind,
    patch: Value,
) -> anyhow::Result<()> {
    let target = session.target(of.kind, &of.namespace, &of.name);
    let options =
        WriteOptions { field_manager: "kubectl-rollout".to_owned(), ..WriteOptions::default() };
    session.http.patch(&target, kind, patch, &options).await?;
    Ok(())
}

async fn restart(session: &Session, of: &Found<'_>) -> anyhow::Result<()> {
    anyhow::ensure!(
        meta::at(&of.object, &["spec", "template"]).is_some() && of.kind.gvr.group == "apps",
        "{} restarting is not supported",
        of.kind.gvr.group_resource()
    );
    anyhow::ensure!(
        of.object["spec"]["paused"] != json!(true),
        "can't restart paused deployment (run rollout resume first)"
    );
    let now = time::seconds(jiff::Timestamp::now());
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    write(session, of, PatchKind::Strategic, patch).await?;
    output::print(&format!("{} restarted\n", of.named()))
}

async fn pause(session: &Session, of: &Found<'_>, to: bool) -> anyhow::Result<()> {
    let place: &Gvr = &of.kind.gvr;
    let verb = if to { "pausing" } else { "resuming" };
    anyhow::ensure!(
        of.kind.label() == "deployment.apps",
        "{} {verb} is not supported",
        place.group_resource()
    );
    let paused = of.object["spec"]["paused"] == json!(true);
    let state = if to { "already paused" } else { "not paused" };
    anyhow::ensure!(paused != to, "{} {:?} is {state}", place.group_resource(), of.name);
    let patch = json!({"spec": {"paused": to}});
    write(session, of, PatchKind::Strategic, patch).await?;
    output::print(&format!("{} {}\n", of.named(), if to { "paused" } else { "resumed" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_in_kubectls_words() {
        let mut web = json!({"metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 3}, "status": {"observedGeneration": 1}});
        let line = |web: &Value| standing("Deployment", web).unwrap();
        let begin = "Waiting for deployment \"web\" rollout to finish:";
        assert_eq!(line(&web).0, "Waiting for deployment spec update to be observed...");
        web["status"] = json!({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 4});
        let text = "1 out of 3 new replicas have been updated...";
        assert_eq!(line(&web), (format!("{begin} {text}"), false));
        web["status"]["updatedReplicas"] = json!(3);
        assert_eq!(line(&web).0, format!("{begin} 1 old replicas are pending termination..."));
        web["status"]["replicas"] = json!(3);
        assert_eq!(line(&web).0, format!("{begin} 0 of 3 updated replicas are available..."));
        web["status"]["availableReplicas"] = json!(3);
        assert_eq!(line(&web), ("deployment \"web\" successfully rolled out".to_owned(), true));
    }

    #[test]
    fn an_undo_goes_to_the_revision_before_the_newest() {
        let revisions = [(1, json!("a")), (3, json!("b")), (4, json!("c"))];
        assert_eq!(back_to(&revisions, 0, "web").unwrap(), "b");
        assert_eq!(back_to(&revisions, 1, "web").unwrap(), "a");
        assert!(back_to(&revisions, 2, "web").is_err());
        assert!(back_to(&revisions[..1], 0, "web").is_err());
    }
}
