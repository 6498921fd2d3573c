//! ReplicaSets and ReplicationControllers: as many matching pods as asked for.
//!
//! Why one loop for both: they differ in the shape of their selector and status only
//! (upstream's replication controller converts, too).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::claim::{claim, selector_of};
use super::pods::{self, is_active, until_available};
use crate::object::selector::Selector;
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};
use crate::stdx::clock::SharedClock;

/// Pods made or deleted in one pass (upstream's `BurstReplicas`).
const BURST_PODS: usize = 500;

/// A condition of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    since: Option<Time>,
}

/// The status of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    replicas: i32,
    fully_labeled: i32,
    ready: i32,
    available: i32,
    observed_generation: i64,
    conditions: Vec<Condition>,
}

/// ReplicaSet or ReplicationController.
pub trait Replicated: Object {
    /// The controller's name.
    const CONTROLLER: &'static str;
    /// `spec.replicas`.
    fn replicas(&self) -> i32;
    /// `spec.selector`; an empty one matches nothing.
    fn selector(&self) -> Selector;
    /// `spec.template`.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// `spec.minReadySeconds`.
    fn min_ready_seconds(&self) -> i32;
    /// `status`.
    fn counts(&self) -> Counts;
    /// The same object with another status.
    fn with_counts(&self, counts: &Counts) -> Self;
}

macro_rules! status_of {
    ($status:expr) => {{
        let status = $status;
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            conditions: status
                .conditions
                .unwrap_or_default()
                .into_iter()
                .map(|it| Condition {
                    kind: it.type_,
                    status: it.status,
                    reason: it.reason,
                    message: it.message,
                    since: it.last_transition_time,
                })
                .collect(),
        }
    }};
}

macro_rules! fill_status {
    ($object:expr, $counts:expr, $condition:ident) => {{
        let (mut object, counts) = ($object.clone(), $counts);
        let status = object.status.get_or_insert_default();
        // Upstream leaves zeros out.
        let some = |number: i32| (number != 0).then_some(number);
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = some(counts.fully_labeled);
        status.ready_replicas = some(counts.ready);
        status.available_replicas = some(counts.available);
        status.observed_generation = Some(counts.observed_generation);
        let conditions = counts.conditions.iter().cloned().map(|it| $condition {
            type_: it.kind,
            status: it.status,
            reason: it.reason,
            message: it.message,
            last_transition_time: it.since,
        });
        let conditions: Vec<_> = conditions.collect();
        status.conditions = (!conditions.is_empty()).then_some(conditions);
        object
    }};
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }
    fn selector(&self) -> Selector {
        match &self.spec {
            Some(spec) => selector_of(&spec.selector),
            None => Selector::nothing(),
        }
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
    fn counts(&self) -> Counts {
        status_of!(self.status.clone().unwrap_or_default())
    }
    fn with_counts(&self, counts: &Counts) -> Self {
        fill_status!(self, counts, ReplicaSetCondition)
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication";
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }
    fn selector(&self) -> Selector {
        let pairs = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        match pairs {
            Some(pairs) if !pairs.is_empty() => Selector::from_pairs(pairs),
            _ => Selector::nothing(),
        }
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
    fn counts(&self) -> Counts {
        status_of!(self.status.clone().unwrap_or_default())
    }
    fn with_counts(&self, counts: &Counts) -> Self {
        fill_status!(self, counts, ReplicationControllerCondition)
    }
}

/// What a set's pods call for.
#[derive(Debug, PartialEq)]
enum Plan {
    Enough,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// `related` are the pods of all sets of the same owner, for ranking.
fn plan(wanted: i32, mut active: Vec<Arc<Pod>>, related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST_PODS));
    }
    let surplus = (active.len() - wanted).min(BURST_PODS);
    if surplus == 0 {
        return Plan::Enough;
    }
    pods::rank_for_deletion(&mut active, related, now);
    active.truncate(surplus);
    Plan::Delete(active)
}

/// The status that follows from the pods; `failure` is what kept the plan from being done.
fn count<T: Replicated>(
    set: &T,
    active: &[Arc<Pod>],
    failure: Option<String>,
    now: Timestamp,
) -> Counts {
    let labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let template = Selector::from_pairs(labels.unwrap_or_default());
    let number = |holds: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let mut counts = set.counts();
    let failed = counts.conditions.iter().any(|it| it.kind == "ReplicaFailure");
    match failure {
        Some(message) if !failed => {
            let short = active.len() < usize::try_from(set.replicas()).unwrap_or(0);
            let reason = if short { "FailedCreate" } else { "FailedDelete" };
            counts.conditions.push(Condition {
                kind: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                since: Some(Time(now)),
            });
        }
        None => counts.conditions.retain(|it| it.kind != "ReplicaFailure"),
        Some(_) => {}
    }
    let available = |pod: &Pod| until_available(pod, set.min_ready_seconds(), now);
    counts.replicas = number(&|_| true);
    counts.fully_labeled = number(&|pod| template.matches_labels(pod.metadata.labels.as_ref()));
    counts.ready = number(&pods::is_ready);
    counts.available = number(&|pod| available(pod) == Some(Duration::ZERO));
    counts.observed_generation = set.metadata().generation.unwrap_or(0);
    counts
}

/// The controller of one of the two kinds.
pub struct Replicas<T: Replicated> {
    sets: Informer<T>,
    pods: Informer<Pod>,
    clock: SharedClock,
}

impl<T: Replicated> Replicas<T> {
    /// Over shared informers.
    pub fn new(informers: &Informers, clock: SharedClock) -> Self {
        Self { sets: informers.of(), pods: informers.of(), clock }
    }

    /// The pods of all sets that have the same managing owner as this one.
    fn related(&self, set: &T) -> Vec<Arc<Pod>> {
        let siblings = match set.controller() {
            Some(owner) => self.sets.owned_by(&owner.uid),
            None => self.sets.at(&set.key()).into_iter().collect(),
        };
        let uids = siblings.iter().map(|sibling| sibling.uid());
        uids.flat_map(|uid| self.pods.owned_by(uid)).collect()
    }

    async fn manage(&self, pass: &Pass, set: &T, active: &[Arc<Pod>]) -> Result<()> {
        let now = self.clock.now();
        let related = self.related(set);
        match plan(set.replicas(), active.to_vec(), &related, now) {
            Plan::Enough => Ok(()),
            Plan::Create(number) => {
                let Some(template) = set.template() else { return Ok(()) };
                let pod = pods::from_template(template, set);
                let answers = pods::create(pass, set, vec![pod; number]).await;
                match answers.into_iter().find_map(Result::err) {
                    Some(status) if !pods::namespace_is_ending(&status) => Err(status),
                    _ => Ok(()),
                }
            }
            Plan::Delete(pods) => pods::delete(pass, set, &pods).await,
        }
    }
}

#[async_trait]
impl<T: Replicated> Controller for Replicas<T> {
    fn name(&self) -> &'static str {
        T::CONTROLLER
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.sets.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.sets.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let own = queue.clone();
        let sets = self.sets.subscribe(move |notice| {
            own.add(notice.newest().map(|set| set.key()).unwrap_or_default());
        });
        let (sets_of_pods, queue) = (self.sets.clone(), queue.clone());
        let pods = self.pods.subscribe(move |notice| {
            for pod in notice.both() {
                match pod.controller() {
                    Some(owner) if owner.kind == T::KIND => {
                        queue.add(ObjectKey::new(pod.namespace(), owner.name.as_str()));
                    }
                    Some(_) => {}
                    // An orphan may be wanted by any set that matches it.
                    None => {
                        for set in sets_of_pods.list(pod.namespace()) {
                            if set.selector().matches_labels(pod.metadata.labels.as_ref()) {
                                queue.add(set.key());
                            }
                        }
                    }
                }
            }
        });
        vec![sets, pods]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let Some(set) = self.sets.at(key) else { return Ok(Action::Await) };
        let mut candidates = self.pods.list(&key.namespace);
        candidates.retain(|pod| is_active(pod));
        let active = claim(pass, &*set, &set.selector(), candidates, None).await?;
        let managed = match set.is_deleting() {
            true => Ok(()),
            false => self.manage(pass, &*set, &active).await,
        };
        let now = self.clock.now();
        let failure = managed.as_ref().err().map(|status| status.message.clone());
        let counts = count(&*set, &active, failure, now);
        if counts != set.counts() {
            match pass.apply(Change::update_status(&set.with_counts(&counts))).await {
                // Gone meanwhile: nothing to tell.
                Err(status) if status.is_not_found() => return Ok(Action::Await),
                other => other?,
            };
        }
        managed?;
        let waits = active.iter().filter_map(|pod| {
            until_available(pod, set.min_ready_seconds(), now).filter(|wait| !wait.is_zero())
        });
        Ok(waits.min().map_or(Action::Await, Action::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_plan_makes_what_lacks_and_takes_the_unready_first() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let pods = vec![pod("a", true), pod("b", false), pod("c", true)];
        assert_eq!(plan(5, pods.clone(), &[], now), Plan::Create(2));
        assert_eq!(plan(3, pods.clone(), &[], now), Plan::Enough);
        assert_eq!(plan(2, pods.clone(), &[], now), Plan::Delete(vec![pods[1].clone()]));
        assert_eq!(plan(9_000, pods, &[], now), Plan::Create(BURST_PODS));
    }

    #[test]
    fn status_counts_and_keeps_the_first_failure() {
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let set = json!({"metadata": {"name": "web", "generation": 3}, "spec": {"replicas": 3,
            "minReadySeconds": 10, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}}}});
        let set: ReplicaSet = serde_json::from_value(set).unwrap();
        let active = [pod("a", true), pod("b", false)];
        let counts = count(&set, &active, Some("no quota".to_owned()), now);
        assert_eq!((counts.replicas, counts.fully_labeled, counts.ready), (2, 2, 1));
        assert_eq!(counts.available, 0);
        assert_eq!(counts.conditions[0].reason.as_deref(), Some("FailedCreate"));
        let later = now + Duration::from_secs(60);
        let failed = set.with_counts(&counts);
        assert_eq!(failed.counts(), counts);
        let again = count(&failed, &active, Some("other".to_owned()), later);
        assert_eq!(again.conditions, counts.conditions);
        let mended = count(&failed, &active, None, later);
        assert!(mended.conditions.is_empty());
        assert_eq!(mended.available, 1);
    }
}
