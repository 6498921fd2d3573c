//! Pods of a Job: how they are made, how often their index has failed, when they finished.
//!
//! Why annotations on pods: an index's failures are told from each pod to the one that replaces it,
//! so they survive everything but the pods themselves.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
};

use super::index::INDEX;
use super::policy;
use crate::controllers::pods;
use crate::reconcile::Object;

/// The finalizer that keeps a pod until it has been counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest prefix of a generated name.
const PREFIX_BYTES_MAX: usize = 58;

/// How often a pod's index failed before it: counted failures, ignored ones.
pub fn failures(pod: &Pod) -> (i32, i32) {
    let read = |key: &str| pod.annotation(key).and_then(|it| it.parse().ok()).unwrap_or(0);
    (read(FAILURES), read(IGNORED_FAILURES))
}

/// A pod of the Job; one with an index may take the place of one that failed.
pub fn pod(job: &Job, spec: &JobSpec, index: Option<i32>, replaced: Option<&Pod>) -> Pod {
    let mut pod = pods::from_template(&spec.template, job);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|name| name == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let number = index.to_string();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), number.clone());
    if spec.backoff_limit_per_index.is_some() {
        let (mut counted, mut ignored) = replaced.map(failures).unwrap_or_default();
        if let Some(replaced) = replaced {
            match policy::judge(job, replaced).counts() {
                true => counted += 1,
                false => ignored += 1,
            }
        }
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), number.clone());
    let tail = format!("-{number}-");
    let stem: String = job.name().chars().take(PREFIX_BYTES_MAX - tail.len()).collect();
    pod.metadata.generate_name = Some(stem + &tail);
    let inner = pod.spec.get_or_insert_default();
    inner.hostname = Some(format!("{}-{number}", job.name()));
    let init = inner.init_containers.iter_mut().flatten();
    inner.containers.iter_mut().chain(init).for_each(add_index_variable);
    pod
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    });
}

/// When a pod finished: by its containers, or else by its Ready condition, its deletion, its birth.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let not_ready = || {
        let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        Some(at - SignedDuration::from_secs(grace))
    };
    let born = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    containers_finished_at(pod)
        .or_else(not_ready)
        .or_else(deleted)
        .or_else(born)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `None` while one of them has not finished. Sidecars count, other init containers do not.
fn containers_finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = init
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let is_sidecar = |it: &&ContainerStatus| sidecars.contains(&it.name.as_str());
    let beside = status.init_container_statuses.iter().flatten().filter(is_sidecar);
    let all = status.container_statuses.iter().flatten().chain(beside);
    let ends: Option<Vec<Timestamp>> = all
        .map(|it| Some(it.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .collect();
    ends?.into_iter().max()
}
