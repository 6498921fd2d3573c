//! What controllers ask of pods: are they active, ready, available; which go first; how they are
//! made from a template and deleted, with upstream's events.
//!
//! Why one place: ReplicaSet, ReplicationController and Job must agree (upstream's
//! `controller_utils.go`).

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::status::Result;
use crate::object::{Status, Value, meta};
use crate::reconcile::change::Pass;
use crate::reconcile::{Change, EventType, Object};

/// The annotation by which users say which pod to delete first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Longest name prefix (upstream cuts generated names at 63 - 5 in the API server).
const NAME_BYTES_MAX: usize = 253;

/// `status.phase`, or "".
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// `spec.nodeName`, or "".
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

/// Whether it has succeeded or failed for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it runs or will run.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// One of its conditions.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Since when it is ready; `None` when it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// How long until a ready pod counts as available: zero when it does, `None` when it is not ready.
pub fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let at =
        ready_since(pod)? + Duration::from_secs(min_ready_seconds.max(0).unsigned_abs().into());
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotation(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Most restarts of a container, and of an init container.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |list: &Option<Vec<ContainerStatus>>| {
        list.iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    (most(&status.container_statuses), most(&status.init_container_statuses))
}

/// Ages compare by their magnitude only, so that which of two old pods goes is not always the same.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(since) = since else { return -1 };
    let age = now.duration_since(since).as_nanos();
    if age <= 0 { -1 } else { i64::from(127 - age.leading_zeros()) }
}

/// Sorts pods so that those to delete first come first (upstream's `ActivePodsWithRanks`).
/// `related` are the active pods of all sets with the same owner.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node_name(pod)).or_default() += 1;
    }
    let phase_order = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        "Running" => 2,
        _ => 3,
    };
    pods.sort_by(|a, b| {
        let ready = (is_ready(a), is_ready(b));
        let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let crowd = |pod: &Pod| on_node.get(node_name(pod)).copied().unwrap_or(0);
        (!node_name(a).is_empty())
            .cmp(&!node_name(b).is_empty())
            .then_with(|| phase_order(a).cmp(&phase_order(b)))
            .then_with(|| ready.0.cmp(&ready.1))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| Reverse(crowd(a)).cmp(&Reverse(crowd(b))))
            .then_with(|| match ready {
                (true, true) => magnitude(ready_since(a), now).cmp(&magnitude(ready_since(b), now)),
                _ => Ordering::Equal,
            })
            .then_with(|| Reverse(restarts(a)).cmp(&Reverse(restarts(b))))
            .then_with(|| magnitude(created(a), now).cmp(&magnitude(created(b), now)))
            .then_with(|| a.uid().cmp(b.uid()))
    });
}

/// A pod as `owner` wants it.
pub fn from_template<C: Object>(template: &PodTemplateSpec, owner: &C) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let prefix: String = format!("{}-", owner.name()).chars().take(NAME_BYTES_MAX - 5).collect();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: owner.metadata().namespace.clone(),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![owner.owner_reference()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether a write was refused because its namespace is ending: not worth telling anyone.
pub fn namespace_is_ending(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Creates pods with a slow start; the answers are those of the attempts made.
pub async fn create<C: Object>(pass: &Pass, owner: &C, pods: Vec<Pod>) -> Vec<Result<Value>> {
    let answers = pass.slow_start(pods.iter().map(Change::create).collect()).await;
    for answer in &answers {
        match answer {
            Ok(pod) => {
                let message = format!("Created pod: {}", meta::name(pod));
                pass.event(owner, EventType::Normal, "SuccessfulCreate", message);
            }
            Err(status) if namespace_is_ending(status) => {}
            Err(status) => {
                let message = format!("Error creating: {status}");
                pass.event(owner, EventType::Warning, "FailedCreate", message);
            }
        }
    }
    answers
}

/// Deletes pods side by side; the first failure is the answer.
pub async fn delete<C: Object>(pass: &Pass, owner: &C, pods: &[Arc<Pod>]) -> Result<()> {
    let answers = pass.apply_each(pods.iter().map(|pod| Change::delete(&**pod)).collect()).await;
    let mut failure = Ok(());
    for (pod, answer) in pods.iter().zip(answers) {
        match answer {
            Ok(Value::Null) => {}
            Ok(_) => {
                let message = format!("Deleted pod: {}", pod.name());
                pass.event(owner, EventType::Normal, "SuccessfulDelete", message);
            }
            Err(status) => {
                let message = format!("Error deleting: {status}");
                pass.event(owner, EventType::Warning, "FailedDelete", message);
                let told = Status { message: format!("unable to delete pods: {status}"), ..status };
                failure = failure.and(Err(told));
            }
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, node: &str, status: Value, cost: Option<&str>) -> Arc<Pod> {
        let annotations = cost.map(|cost| json!({DELETION_COST: cost}));
        let pod = json!({"metadata": {"name": uid, "uid": uid, "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": node}, "status": status});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let ready = |since: &str| {
            json!({"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": since}]})
        };
        let old = ready("2026-01-01T00:00:00Z");
        let mut pods = vec![
            pod("old-ready", "n1", old.clone(), None),
            pod("precious", "n1", old.clone(), Some("10")),
            pod("young-ready", "n1", ready("2026-01-01T11:59:00Z"), None),
            pod("crowded", "n2", old.clone(), None),
            pod("not-ready", "n1", json!({"phase": "Running"}), None),
            pod("pending", "n1", json!({"phase": "Pending"}), None),
            pod("unassigned", "", json!({"phase": "Pending"}), None),
            pod("cheap", "n1", old.clone(), Some("-5")),
        ];
        let mut related = pods.clone();
        related.extend((0..9).map(|_| pod("other", "n2", old.clone(), None)));
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        rank_for_deletion(&mut pods, &related, now);
        let order: Vec<&str> = pods.iter().map(|pod| pod.name()).collect();
        let expected = [
            "unassigned",
            "pending",
            "not-ready",
            "cheap",
            "crowded",
            "young-ready",
            "old-ready",
            "precious",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let pod = pod("p", "n", status, None);
        let now = "2026-01-01T00:00:04Z".parse().unwrap();
        assert_eq!(until_available(&pod, 10, now), Some(Duration::from_secs(6)));
        assert_eq!(until_available(&pod, 4, now), Some(Duration::ZERO));
        assert_eq!(until_available(&Pod::default(), 0, now), None);
    }
}
