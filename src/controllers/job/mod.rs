//! Jobs: pods that run to their end, counted exactly once.
//!
//! Why a plan apart: all decisions are a pure function of the Job, its pods and the time
//! (`plan.rs`, with the user's policies in `policy.rs` and index sets in `index.rs`); this file
//! gathers and writes, in the order that makes a crash harmless.

mod index;
mod make;
mod plan;
mod policy;
#[cfg(test)]
mod tests;
mod track;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::claim::{claim, selector_of, with_finalizer};
use super::pods;
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, EventType, Object, ObjectKey};
use crate::stdx::clock::SharedClock;
use make::FINALIZER;
use plan::{Plan, is_finished, is_tracked};

/// The label with the Job's name on its pods.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The value of `spec.managedBy` that means this controller.
const MANAGED_BY_US: &str = "kubernetes.io/job-controller";

/// The controller.
pub struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    clock: SharedClock,
}

impl Jobs {
    /// Over shared informers.
    pub fn new(informers: &Informers, clock: SharedClock) -> Self {
        Self { jobs: informers.of(), pods: informers.of(), clock }
    }

    /// Pods that say they are of this Job and that nobody will count any more: of a Job that is
    /// gone or finished, or set free.
    fn strays(&self, key: &ObjectKey, job: Option<&Job>) -> Vec<Arc<Pod>> {
        let live = job.filter(|job| !is_finished(job)).map(|job| job.uid());
        let mut pods = self.pods.list(&key.namespace);
        pods.retain(|pod| {
            let owner = pod.controller().filter(|owner| owner.kind == "Job");
            let ours = match owner {
                Some(owner) => owner.name == key.name,
                None => pod.label(JOB_NAME) == Some(key.name.as_str()),
            };
            let counted = owner.is_some_and(|owner| Some(owner.uid.as_str()) == live);
            // What matches the selector of a live Job without an owner will be adopted.
            let adopted = owner.is_none() && live.is_some();
            ours && is_tracked(pod) && !counted && !adopted
        });
        pods
    }

    async fn carry_out(&self, pass: &Pass, job: &Job, plan: Plan) -> Result<()> {
        let mut failure = Ok(());
        if plan.uncounted_delete {
            failure = release(pass, &plan.delete).await;
        }
        failure = failure.and(pods::delete(pass, job, &plan.delete).await);
        let answers = pods::create(pass, job, plan.create).await;
        let refused = answers.into_iter().find_map(Result::err);
        if let Some(status) = refused.filter(|status| !pods::namespace_is_ending(status)) {
            failure = failure.and(Err(status));
        }
        // The status would tell of what did not happen: the next pass counts afresh.
        failure?;
        if job.status.as_ref() != Some(&plan.status) {
            let changed = Job { status: Some(plan.status), ..job.clone() };
            pass.apply(Change::update_status(&changed)).await?;
        }
        for (kind, reason, message) in plan.events {
            pass.event(job, kind, &reason, message);
        }
        release(pass, &plan.release).await
    }
}

/// Takes the tracking finalizer from pods.
async fn release(pass: &Pass, pods: &[Arc<Pod>]) -> Result<()> {
    let tracked = pods.iter().filter(|pod| is_tracked(pod));
    let changes = tracked.map(|pod| {
        let finalizers = with_finalizer(&**pod, FINALIZER, false);
        Change::merge_exact(&**pod, json!({"metadata": {"finalizers": finalizers}}))
    });
    let mut failure = Ok(());
    for answer in pass.apply_each(changes.collect()).await {
        match answer {
            Err(status) if !status.is_not_found() => failure = failure.and(Err(status)),
            _ => {}
        }
    }
    failure
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.jobs.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let tracked = self.pods.list("").into_iter().filter(|pod| is_tracked(pod));
        let of_pods = tracked.filter_map(|pod| job_of(&pod));
        self.jobs.keys().into_iter().chain(of_pods).collect()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let own = queue.clone();
        let jobs = self.jobs.subscribe(move |notice| {
            own.add(notice.newest().map(|job| job.key()).unwrap_or_default());
        });
        let (all, queue) = (self.jobs.clone(), queue.clone());
        let pods = self.pods.subscribe(move |notice| {
            for pod in notice.both() {
                if let Some(key) = job_of(pod) {
                    queue.add(key);
                } else if pod.controller().is_none() {
                    for job in all.list(pod.namespace()) {
                        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                        let labels = pod.metadata.labels.as_ref();
                        if selector.is_some_and(|it| selector_of(it).matches_labels(labels)) {
                            queue.add(job.key());
                        }
                    }
                }
            }
        });
        vec![jobs, pods]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let job = self.jobs.at(key);
        let external = job.as_ref().and_then(|job| job.spec.as_ref()?.managed_by.as_deref());
        if external.is_some_and(|manager| manager != MANAGED_BY_US) {
            return Ok(Action::Await);
        }
        release(pass, &self.strays(key, job.as_deref())).await?;
        let Some(job) = job.filter(|job| !is_finished(job)) else { return Ok(Action::Await) };
        let Some(spec) = &job.spec else { return Ok(Action::Await) };
        let known = ["NonIndexed", "Indexed"];
        if spec.completion_mode.as_deref().is_some_and(|mode| !known.contains(&mode)) {
            let text = "Skipped Job sync because completion mode is unknown".to_owned();
            pass.event(&*job, EventType::Warning, "UnknownCompletionMode", text);
            return Ok(Action::Await);
        }
        let Some(selector) = &spec.selector else { return Ok(Action::Await) };
        let candidates = self.pods.list(&key.namespace);
        let selector = selector_of(selector);
        let pods = claim(pass, &*job, &selector, candidates, Some(FINALIZER)).await?;
        let plan = plan::plan(&job, spec, &pods, self.clock.now());
        let again = plan.again;
        self.carry_out(pass, &job, plan).await?;
        Ok(again.map_or(Action::Await, Action::After))
    }
}

/// The Job that a pod is of, or says it is of.
fn job_of(pod: &Pod) -> Option<ObjectKey> {
    let name = match pod.controller() {
        Some(owner) if owner.kind == "Job" => owner.name.as_str(),
        Some(_) => return None,
        None => pod.label(JOB_NAME).filter(|_| is_tracked(pod))?,
    };
    Some(ObjectKey::new(pod.namespace(), name))
}
