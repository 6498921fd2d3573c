//! Decides the next step of a Job from its status and its pods.
//!
//! Why so many rules: when a Job ends is the user's choice of limits, deadlines and policies; they
//! are asked in upstream's order (`job_controller.go`), and the first that holds decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::index::{Indexes, index_of};
use super::make::{self, FINALIZER};
use super::policy::{self, Verdict};
use crate::controllers::pods::{self, is_active, is_terminal, phase};
use crate::reconcile::{EventType, Object};
use crate::stdx::backoff::Backoff;

/// Pods made or deleted in one pass.
const BURST_PODS: usize = 500;
/// How long a Job waits after failures before it makes pods again.
const POD_BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(10), max: Duration::from_secs(600), jitter: 0.0 };

/// What a pass should do, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to delete; those of a Job that goes on lose their finalizer first.
    pub delete: Vec<Arc<Pod>>,
    /// Whether `delete` is of a Job that goes on.
    pub uncounted_delete: bool,
    /// Pods to make.
    pub create: Vec<Pod>,
    /// The new status.
    pub status: JobStatus,
    /// What to tell when the status stands.
    pub events: Vec<(EventType, String, String)>,
    /// Pods whose finalizer may go when the status stands.
    pub release: Vec<Arc<Pod>>,
    /// When to look again although nothing changes.
    pub again: Option<Duration>,
}

/// A condition of a Job.
pub fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    text: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(text.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition that is true.
pub fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a Job is complete or has failed.
pub fn is_finished(job: &Job) -> bool {
    job.status
        .as_ref()
        .is_some_and(|it| find(it, "Complete").is_some() || find(it, "Failed").is_some())
}

/// Whether a pod still has the tracking finalizer.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

/// Plans the next step. `pods` are all pods of the Job.
pub fn plan(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut world = World::new(job, spec, pods, now);
    world.count();
    world.decide_end();
    world.read_indexes();
    if world.end.is_some() {
        world.stop();
    } else {
        world.go_on();
    }
    world.track();
    world.plan
}

/// Why a Job ends: the condition that says so first, then comes Complete or Failed.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

pub(super) struct World<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
    pub(super) plan: Plan,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) terminating: usize,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Indexes as the status has them, and with the pods that have just succeeded.
    pub(super) counted_indexes: Indexes,
    pub(super) succeeded_indexes: Indexes,
    pub(super) failed_indexes: Option<Indexes>,
    /// Of each index that is to be tried again, the failed pod that the next one replaces.
    pub(super) replaced: BTreeMap<i32, Arc<Pod>>,
    pub(super) end: Option<End>,
}

impl<'a> World<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        if status.start_time.is_none() && !suspended(spec) {
            status.start_time = Some(Time(now));
        }
        let plan = Plan { status, ..Plan::default() };
        let active = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let ending = |pod: &&Arc<Pod>| pod.is_deleting() && !is_terminal(pod);
        let terminating = pods.iter().filter(ending).count();
        Self {
            job,
            spec,
            pods,
            now,
            plan,
            active,
            terminating,
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            replaced: BTreeMap::new(),
            end: None,
        }
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The uids that wait in the status: succeeded, failed.
    pub(super) fn uncounted(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let uncounted = self.plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().collect();
        (set(uncounted.succeeded), set(uncounted.failed))
    }

    /// A pod whose index the Job has, or any pod of a Job without indexes.
    pub(super) fn has_place(&self, pod: &Pod) -> bool {
        !self.is_indexed() || index_of(pod).is_some_and(|index| index < self.completions())
    }

    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        phase(pod) == "Failed"
            || (!self.only_replaces_failed() && pod.is_deleting() && phase(pod) != "Succeeded")
    }

    /// Whether a pod that is ending still holds its place until it has failed.
    fn only_replaces_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn count(&mut self) {
        let (succeeded, failed) = self.uncounted();
        let status = &self.plan.status;
        let counts = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let fresh = self.pods.iter().filter(|pod| is_tracked(pod) && self.has_place(pod));
        let (mut more_succeeded, mut more_failed) = (succeeded.len(), failed.len());
        for pod in fresh {
            let done = phase(pod) == "Succeeded";
            more_succeeded += usize::from(done && !succeeded.contains(pod.uid()));
            let lost = self.is_failed(pod) && !failed.contains(pod.uid());
            more_failed += usize::from(lost && policy::judge(self.job, pod).counts());
        }
        self.succeeded = counts.0.saturating_add(number(more_succeeded));
        self.failed = counts.1.saturating_add(number(more_failed));
    }

    fn backoff_limit(&self) -> i32 {
        // With a limit per index the API server sets none for the whole.
        let default = if self.spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
        self.spec.backoff_limit.unwrap_or(default)
    }

    fn decide_end(&mut self) {
        let status = &self.plan.status;
        let words = |it: &JobCondition| {
            (it.reason.clone().unwrap_or_default(), it.message.clone().unwrap_or_default())
        };
        if let Some((reason, message)) = find(status, "SuccessCriteriaMet").map(words) {
            self.end = Some(End { success: true, reason, message });
            return;
        }
        if let Some((reason, message)) = find(status, "FailureTarget").map(words) {
            self.end = Some(End { success: false, reason, message });
            return;
        }
        let failed = self.pods.iter().filter(|pod| self.is_failed(pod));
        let fatal = failed.filter(|_| self.spec.pod_failure_policy.is_some()).find_map(|pod| {
            match policy::judge(self.job, pod) {
                Verdict::FailJob(message) => Some(message),
                _ => None,
            }
        });
        if let Some(message) = fatal {
            self.fail("PodFailurePolicy", &message);
        } else if self.failed > self.backoff_limit() || self.restarts_exceed() {
            self.fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        } else if let Some(left) = self.deadline_left() {
            if left.is_zero() {
                self.fail("DeadlineExceeded", "Job was active longer than specified deadline");
            } else {
                self.look_again(left);
            }
        }
    }

    fn fail(&mut self, reason: &str, message: &str) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        self.end = Some(End { success: false, reason, message });
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.again = Some(self.plan.again.map_or(after, |present| present.min(after)));
    }

    fn deadline_left(&self) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !suspended(self.spec))?;
        let start = self.plan.status.start_time.as_ref()?.0;
        let end = start + Duration::from_secs(seconds.unsigned_abs());
        Some(Duration::try_from(end.duration_since(self.now)).unwrap_or(Duration::ZERO))
    }

    /// With `restartPolicy: OnFailure` the restarts of running pods count as failures.
    fn restarts_exceed(&self) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|it| it.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let live = self.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let statuses = live.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let restarts: i64 = statuses.map(|container| i64::from(container.restart_count)).sum();
        let limit = i64::from(self.backoff_limit());
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn read_indexes(&mut self) {
        if !self.is_indexed() {
            return;
        }
        let completions = self.completions();
        let status = &self.plan.status;
        let text = status.completed_indexes.as_deref().unwrap_or("");
        self.counted_indexes = Indexes::parse(text, completions);
        self.succeeded_indexes = self.counted_indexes.clone();
        let tracked: Vec<(i32, Arc<Pod>)> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod) && self.has_place(pod))
            .filter_map(|pod| Some((index_of(pod)?, pod.clone())))
            .collect();
        for (index, _) in tracked.iter().filter(|(_, pod)| phase(pod) == "Succeeded") {
            self.succeeded_indexes.insert(*index);
        }
        self.succeeded = self.succeeded_indexes.len();
        if let Some(limit) = self.spec.backoff_limit_per_index {
            let text = self.plan.status.failed_indexes.as_deref().unwrap_or("");
            let mut failed = Indexes::parse(text, completions);
            for (index, pod) in tracked.iter().filter(|(_, pod)| self.is_failed(pod)) {
                let verdict = policy::judge(self.job, pod);
                let spent = verdict.counts() && make::failures(pod).0 >= limit;
                if verdict == Verdict::FailIndex || spent {
                    failed.insert(*index);
                }
            }
            self.end_by_failed_indexes(&failed);
            self.find_replaced(&tracked, &failed);
            self.failed_indexes = Some(failed);
        }
        if self.end.is_none()
            && let Some(message) = policy::success(self.job, &self.succeeded_indexes)
        {
            self.end = Some(End { success: true, reason: "SuccessPolicy".to_owned(), message });
        }
    }

    fn end_by_failed_indexes(&mut self, failed: &Indexes) {
        if self.end.is_some() {
            return;
        }
        let (lost, done) = (failed.len(), self.succeeded_indexes.len());
        if self.spec.max_failed_indexes.is_some_and(|most| lost > most) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            self.fail("MaxFailedIndexesExceeded", text);
        } else if lost > 0 && lost + done >= self.completions() {
            self.fail("FailedIndexes", "Job has failed indexes");
        }
    }

    fn find_replaced(&mut self, tracked: &[(i32, Arc<Pod>)], failed: &Indexes) {
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        let mut replaced: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for (index, pod) in tracked.iter().filter(|(_, pod)| self.is_failed(pod)) {
            if self.succeeded_indexes.has(*index) || failed.has(*index) || active.contains(index) {
                continue;
            }
            let rank = |pod: &Pod| {
                let (counted, ignored) = make::failures(pod);
                (counted + ignored, make::finished_at(pod))
            };
            if replaced.get(index).is_none_or(|other| rank(other) <= rank(pod)) {
                replaced.insert(*index, pod.clone());
            }
        }
        self.replaced = replaced;
    }

    /// The Job ends: what still runs is deleted.
    fn stop(&mut self) {
        self.plan.delete = std::mem::take(&mut self.active);
    }

    fn go_on(&mut self) {
        if self.job.is_deleting() {
            return;
        }
        self.manage();
        let left = self.active.len() - self.plan.delete.len() + self.plan.create.len();
        let complete = match self.spec.completions {
            None => self.succeeded > 0 && left == 0,
            Some(wanted) => self.succeeded >= wanted && left == 0,
        };
        if complete {
            self.plan.create.clear();
            self.end = Some(End {
                success: true,
                reason: "CompletionsReached".to_owned(),
                message: "Reached expected number of succeeded pods".to_owned(),
            });
        } else {
            self.note_suspension();
        }
        let gone: BTreeSet<String> =
            self.plan.delete.iter().map(|pod| pod.uid().to_owned()).collect();
        self.active.retain(|pod| !gone.contains(pod.uid()));
    }

    fn manage(&mut self) {
        self.plan.uncounted_delete = true;
        let active = self.active.len();
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            _ if suspended(self.spec) => 0,
            None if self.succeeded > 0 => number(active),
            None => parallelism,
            Some(completions) => (completions - self.succeeded).clamp(0, parallelism.max(0)),
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut surplus = self.surplus(active.saturating_sub(wanted));
        if !suspended(self.spec) {
            surplus.truncate(BURST_PODS);
        }
        if !surplus.is_empty() {
            self.plan.delete = surplus;
            return;
        }
        let held = if self.only_replaces_failed() { self.terminating } else { 0 };
        let lacking = wanted.saturating_sub(held + active).min(BURST_PODS);
        if lacking == 0 || suspended(self.spec) {
            return;
        }
        if self.spec.backoff_limit_per_index.is_none() {
            let wait = self.backoff_left();
            if !wait.is_zero() {
                self.look_again(wait);
                return;
            }
        }
        if self.is_indexed() {
            self.create_indexed(lacking);
        } else {
            self.plan.create = vec![make::pod(self.job, self.spec, None, None); lacking];
        }
    }

    /// At least `least` active pods to take away: those with an index twice or out of range first.
    fn surplus(&self, least: usize) -> Vec<Arc<Pod>> {
        let mut left = self.active.clone();
        let mut surplus = Vec::new();
        pods::rank_for_deletion(&mut left, &[], self.now);
        if self.is_indexed() {
            let mut seen = BTreeSet::new();
            // From the best on: the one that stays of each index is the one worth most.
            left = left
                .into_iter()
                .rev()
                .filter(|pod| {
                    let keep =
                        self.has_place(pod) && index_of(pod).is_some_and(|it| seen.insert(it));
                    if !keep {
                        surplus.push(pod.clone());
                    }
                    keep
                })
                .collect();
            left.reverse();
        }
        let more = least.saturating_sub(surplus.len());
        surplus.extend(left.into_iter().take(more));
        surplus
    }

    /// How long to wait after the failures since the last success.
    fn backoff_left(&self) -> Duration {
        let finished = |pod: &Arc<Pod>| make::finished_at(pod);
        let done = self.pods.iter().filter(|pod| phase(pod) == "Succeeded").map(finished).max();
        let failures = self.pods.iter().filter(|pod| self.is_failed(pod)).map(finished);
        let after: Vec<Timestamp> =
            failures.filter(|at| done.is_none_or(|done| *at > done)).collect();
        let Some(last) = after.iter().max() else { return Duration::ZERO };
        self.wait_after(*last, number(after.len()))
    }

    fn wait_after(&self, last: Timestamp, failures: i32) -> Duration {
        let delay = POD_BACKOFF.exact(failures.unsigned_abs());
        let left = (last + delay).duration_since(self.now);
        Duration::try_from(left).unwrap_or(Duration::ZERO)
    }

    fn create_indexed(&mut self, lacking: usize) {
        let mut taken = self.succeeded_indexes.clone();
        let holds = |pod: &&Arc<Pod>| {
            is_active(pod)
                || (self.only_replaces_failed() && pod.is_deleting() && !is_terminal(pod))
        };
        for index in self.pods.iter().filter(holds).filter_map(|pod| index_of(pod)) {
            taken.insert(index);
        }
        if let Some(failed) = &self.failed_indexes {
            taken.merge(failed);
        }
        let mut soonest = None;
        for index in taken.first_missing(lacking, self.completions()) {
            let replaced = self.replaced.get(&index).map(|pod| &**pod);
            let wait = replaced.map_or(Duration::ZERO, |pod| {
                let (counted, ignored) = make::failures(pod);
                self.wait_after(make::finished_at(pod), counted + ignored + 1)
            });
            if wait.is_zero() {
                let pod = make::pod(self.job, self.spec, Some(index), replaced);
                self.plan.create.push(pod);
            } else {
                soonest = Some(soonest.map_or(wait, |other: Duration| other.min(wait)));
            }
        }
        if let Some(wait) = soonest {
            self.look_again(wait);
        }
    }

    fn note_suspension(&mut self) {
        let is = suspended(self.spec);
        let (word, reason, text) = match is {
            true => ("True", "JobSuspended", "Job suspended"),
            false => ("False", "JobResumed", "Job resumed"),
        };
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let new = condition("Suspended", word, reason, text, self.now);
        match conditions.iter_mut().find(|it| it.type_ == "Suspended") {
            Some(present) if present.status == word => return,
            Some(present) => *present = new,
            None if is => conditions.push(new),
            None => return,
        }
        let event = if is { "Suspended" } else { "Resumed" };
        self.plan.events.push((EventType::Normal, event.to_owned(), text.to_owned()));
        self.plan.status.start_time = (!is).then_some(Time(self.now));
    }
}

fn suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Upstream leaves zeros out.
pub(super) fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
