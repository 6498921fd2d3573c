//! Counts finished pods and ends a Job when nothing is left to count.
//!
//! Why finalizers: a pod that finished must be counted exactly once, even if it is deleted or this
//! process dies. A finished pod's uid is first written into the status (`uncountedTerminatedPods`),
//! then its finalizer goes, and when it is seen to be gone the uid becomes a number. Each pass does
//! what can be done of this, and the pods' changes bring the next.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::index::index_of;
use super::plan::{World, condition, find, is_tracked, number, some};
use super::policy;
use crate::controllers::pods::{is_ready, phase};
use crate::reconcile::{EventType, Object};

/// Uids of pods that wait in the status to be counted; more wait for the next pass.
const UNCOUNTED_PODS_MAX: usize = 500;

impl World<'_> {
    /// Counts finished pods and ends the Job when nothing is left to count.
    pub(super) fn track(&mut self) {
        let tracked: BTreeSet<String> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(|pod| pod.uid().to_owned())
            .collect();
        self.settle_counted(&tracked);
        let full = self.take_finished();
        if self.is_indexed() {
            let text = self.counted_indexes.to_string();
            let status = &mut self.plan.status;
            status.succeeded = some(self.counted_indexes.len());
            status.completed_indexes = Some(text).filter(|text| !text.is_empty());
            status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
        }
        let deleted = self.plan.delete.len();
        let created = self.plan.create.len();
        let status = &mut self.plan.status;
        let ready = self.active.iter().filter(|pod| is_ready(pod)).count();
        status.active = some(number(self.active.len() + created));
        status.ready = Some(number(ready));
        status.terminating = Some(number(self.terminating + deleted));
        let waits = full || !self.plan.release.is_empty() || self.terminating + deleted > 0;
        self.tell_end(waits);
    }

    /// Uids whose pods have lost their finalizer become numbers.
    fn settle_counted(&mut self, tracked: &BTreeSet<String>) {
        let status = &mut self.plan.status;
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        for (list, total) in [
            (&mut uncounted.succeeded, &mut status.succeeded),
            (&mut uncounted.failed, &mut status.failed),
        ] {
            let Some(uids) = list else { continue };
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid));
            let settled = before - uids.len();
            if settled > 0 {
                *total = some(total.unwrap_or(0).saturating_add(number(settled)));
            }
            if uids.is_empty() {
                *list = None;
            }
        }
    }

    /// Puts finished pods into the status. Whether there was no room for all is the answer.
    fn take_finished(&mut self) -> bool {
        let (mut succeeded, mut failed) = self.uncounted();
        let mut fresh_indexes = 0;
        let mut full = false;
        let failing = self.end.as_ref().is_some_and(|end| !end.success);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let lost = self.is_failed(pod);
            if !self.may_release(pod, lost) {
                continue;
            }
            self.plan.release.push(pod.clone());
            let uid = pod.uid();
            if phase(pod) == "Succeeded" && !failed.contains(uid) {
                if !self.is_indexed() {
                    succeeded.insert(uid.to_owned());
                } else if self.has_place(pod)
                    && let Some(index) = index_of(pod)
                {
                    fresh_indexes += usize::from(!self.counted_indexes.has(index));
                    self.counted_indexes.insert(index);
                }
            } else if (lost || failing)
                && self.has_place(pod)
                && policy::judge(self.job, pod).counts()
            {
                failed.insert(uid.to_owned());
            }
            if fresh_indexes + succeeded.len() + failed.len() >= UNCOUNTED_PODS_MAX {
                full = true;
                break;
            }
        }
        let list = |set: BTreeSet<String>| {
            let list: Vec<String> = set.into_iter().collect();
            (!list.is_empty()).then_some(list)
        };
        let uncounted = self.plan.status.uncounted_terminated_pods.get_or_insert_default();
        uncounted.succeeded = list(succeeded);
        uncounted.failed = list(failed);
        full
    }

    fn may_release(&self, pod: &Pod, lost: bool) -> bool {
        if self.job.is_deleting() || self.end.is_some() || phase(pod) == "Succeeded" {
            return true;
        }
        // The failed pod that is to be replaced tells its heir how often the index has failed.
        let awaited =
            index_of(pod).and_then(|index| self.replaced.get(&index)).map(|pod| pod.uid());
        lost && awaited != Some(pod.uid())
    }

    fn tell_end(&mut self, waits: bool) {
        let Some(end) = self.end.clone() else { return };
        let status = &mut self.plan.status;
        let (first, last) = match end.success {
            true => ("SuccessCriteriaMet", "Complete"),
            false => ("FailureTarget", "Failed"),
        };
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let counting = uncounted.succeeded.is_some() || uncounted.failed.is_some();
        let known = find(status, first).is_some();
        let make = |kind: &str| condition(kind, "True", &end.reason, &end.message, self.now);
        if !known {
            status.conditions.get_or_insert_default().push(make(first));
        }
        if waits || counting {
            return;
        }
        status.conditions.get_or_insert_default().push(make(last));
        if end.success {
            status.completion_time = Some(Time(self.now));
            let done = status.succeeded.unwrap_or(0);
            if self.spec.completions.is_some_and(|wanted| done > wanted) {
                let text = "Too many succeeded pods running after completion count reached";
                let event =
                    (EventType::Warning, "TooManySucceededPods".to_owned(), text.to_owned());
                self.plan.events.push(event);
            }
            let event = (EventType::Normal, "Completed".to_owned(), "Job completed".to_owned());
            self.plan.events.push(event);
        } else {
            self.plan.events.push((EventType::Warning, end.reason, end.message));
        }
    }
}
