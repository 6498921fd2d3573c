//! A Deployment's status: counts, Available, Progressing and its deadline, ReplicaFailure.
//!
//! Why exact: `kubectl rollout status`, `wait` and people's alerts read these reasons and texts.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::scale::{max_unavailable, replicas};
use super::sets::{available, size};
use crate::reconcile::Object;

/// The deadline that means none.
const NO_DEADLINE: i32 = i32::MAX;

/// A new condition.
pub fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition of this type.
pub fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition; the same status with the same reason stays as it is.
pub fn set_condition(
    conditions: &mut Option<Vec<DeploymentCondition>>,
    mut new: DeploymentCondition,
) {
    let list = conditions.get_or_insert_default();
    if let Some(at) = list.iter().position(|condition| condition.type_ == new.type_) {
        if list[at].status == new.status {
            if list[at].reason == new.reason {
                return;
            }
            new.last_transition_time = list[at].last_transition_time.clone();
        }
        list.remove(at);
    }
    list.push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(list) = &mut status.conditions {
        list.retain(|condition| condition.type_ != kind);
        if list.is_empty() {
            status.conditions = None;
        }
    }
}

/// `spec.progressDeadlineSeconds`, unless it means none.
pub fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != NO_DEADLINE).then_some(seconds)
}

fn reason(condition: Option<&DeploymentCondition>) -> &str {
    condition.and_then(|condition| condition.reason.as_deref()).unwrap_or("")
}

/// Pausing stops the deadline's clock, resuming starts it anew.
pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let present = reason(find(status, "Progressing"));
    if present == "ProgressDeadlineExceeded" {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    let noted = present == "DeploymentPaused";
    let (reason, message) = match (paused, noted) {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let new = condition("Progressing", "Unknown", reason, message, now);
    set_condition(&mut status.conditions, new);
}

/// Counts, and Available. `base` carries the conditions so far.
pub fn count(
    deployment: &Deployment,
    base: &DeploymentStatus,
    sets: &[&ReplicaSet],
    newest: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| {
        set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    };
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let available = sum(&available);
    let some = |number: i32| (number != 0).then_some(number);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&actual)),
        updated_replicas: some(newest.map_or(0, actual)),
        ready_replicas: some(sum(&ready)),
        available_replicas: some(available),
        unavailable_replicas: some((sum(&size) - available).max(0)),
        ..base.clone()
    };
    let enough = available >= replicas(deployment) - max_unavailable(deployment);
    let (word, reason, message) = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    let new = condition("Available", word, reason, message, now);
    set_condition(&mut status.conditions, new);
    status
}

/// Whether all pods are of the newest template, and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.iter().all(|number| number.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

fn advanced(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(seconds), Some(condition)) = (deadline(deployment), find(status, "Progressing"))
    else {
        return false;
    };
    match reason(Some(condition)) {
        "NewReplicaSetAvailable" => false,
        "ProgressDeadlineExceeded" => true,
        _ => condition.last_update_time.as_ref().is_some_and(|from| {
            from.0 + Duration::from_secs(u64::from(seconds.unsigned_abs())) < now
        }),
    }
}

/// Counts, conditions and progress while a rollout is under way. `base` is the status with the
/// conditions that this pass has set already.
pub fn rollout_status(
    deployment: &Deployment,
    base: &DeploymentStatus,
    sets: &[&ReplicaSet],
    newest: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = count(deployment, base, sets, newest, now);
    if deadline(deployment).is_none() {
        remove_condition(&mut status, "Progressing");
    }
    let present = find(base, "Progressing").cloned();
    let settled = status.replicas == status.updated_replicas
        && reason(present.as_ref()) == "NewReplicaSetAvailable";
    if deadline(deployment).is_some() && !settled {
        let subject = match newest {
            Some(set) => format!("ReplicaSet {:?}", set.name()),
            None => format!("Deployment {:?}", deployment.name()),
        };
        let new = |word: &str, reason: &str, tail: &str| {
            condition("Progressing", word, reason, &format!("{subject} {tail}"), now)
        };
        if is_complete(deployment, &status) {
            let new = new("True", "NewReplicaSetAvailable", "has successfully progressed.");
            set_condition(&mut status.conditions, new);
        } else if advanced(base, &status) {
            let mut new = new("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(present) = present.filter(|present| present.status == "True") {
                new.last_transition_time = present.last_transition_time;
            }
            // Removed first: the time of the last update must move even if nothing else does.
            remove_condition(&mut status, "Progressing");
            set_condition(&mut status.conditions, new);
        } else if timed_out(deployment, &status, now) {
            let new = new("False", "ProgressDeadlineExceeded", "has timed out progressing.");
            set_condition(&mut status.conditions, new);
        }
    }
    match replica_failure(sets, newest) {
        Some(failure) => set_condition(&mut status.conditions, failure),
        None => remove_condition(&mut status, "ReplicaFailure"),
    }
    status
}

fn replica_failure(
    sets: &[&ReplicaSet],
    newest: Option<&ReplicaSet>,
) -> Option<DeploymentCondition> {
    let mut failures = newest.into_iter().chain(sets.iter().copied()).flat_map(|set| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().filter(|it| it.type_ == "ReplicaFailure")
    });
    let failure = failures.next()?.clone();
    Some(DeploymentCondition {
        type_: "ReplicaFailure".to_owned(),
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    })
}

/// When the deadline must be looked at again, if it can still pass.
pub fn next_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let seconds = deadline(deployment)?;
    let condition = find(status, "Progressing")?;
    let over = matches!(
        reason(Some(condition)),
        "ProgressDeadlineExceeded" | "DeploymentPaused" | "NewReplicaSetAvailable"
    );
    if over || is_complete(deployment, status) {
        return None;
    }
    let from = condition.last_update_time.as_ref()?.0;
    let end = from + Duration::from_secs(u64::from(seconds.unsigned_abs()) + 1);
    Some(
        Duration::try_from(end.duration_since(now)).unwrap_or_default().max(Duration::from_secs(1)),
    )
}
