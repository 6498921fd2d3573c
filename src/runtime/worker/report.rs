//! Writing what happened to the API: the status while the pod lives, the deletion at its end.

use super::{Done, WRITE_RETRY, Worker, ops};
use crate::client::{DeleteOptions, PatchKind, Target, WriteOptions};
use crate::object::{Gvr, Status};
use crate::reconcile::Object;
use crate::runtime::plan;
use crate::runtime::status::{self, Facts};
use k8s_openapi::api::core::v1 as core;
use std::sync::Arc;

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

impl Worker {
    /// The status as it should be.
    fn facts_status(&self) -> core::PodStatus {
        let running = self
            .attempts
            .values()
            .filter_map(|list| list.last())
            .any(|container| plan::runs(Some(container)));
        let over = plan::is_over(&self.model, &self.attempts);
        let ended = !running && self.busy.is_empty() && (self.end().is_some() || over);
        let sandbox = self.sandbox.as_ref();
        status::status(&Facts {
            model: &self.model,
            attempts: &self.attempts,
            health: &self.health,
            waiting: &self.waiting,
            messages: &self.words,
            sandbox: plan::runs(sandbox)
                && (self.sandbox_id.is_some() || self.addresses.is_empty()),
            addresses: &self.addresses,
            host: self.host.config.ip,
            failure: self.failure.as_ref(),
            ended,
            first_seen: self.first_seen,
            now: self.host.clock.now(),
        })
    }

    /// Writes the status if it differs; true when there is nothing to write.
    pub(super) fn report(&mut self) -> bool {
        if self.gone || self.deleting {
            return true;
        }
        let now = self.host.clock.now();
        if self.writing || self.write_held.is_some_and(|until| until > now) {
            return false;
        }
        self.write_held = None;
        let old = self.model.pod.status.clone().unwrap_or_default();
        let new = self.facts_status();
        let uid = self.model.pod.uid();
        let Some(patch) = status::patch(uid, &old, &new) else { return true };
        // The server made nothing of these words before; saying them again would not end.
        let said = (self.model.pod.metadata.resource_version.clone(), patch.clone());
        if self.said.as_ref() == Some(&said) {
            return true;
        }
        self.said = Some(said);
        let pod = &self.model.pod;
        tracing::trace!(pod = %self.model.long_name(), %patch, "status");
        let target = Target::object(&pods(), pod.namespace(), pod.name()).sub("status");
        let client = self.host.client.clone();
        self.writing = true;
        self.spawn("", async move {
            let options =
                WriteOptions { field_manager: "kubelet".to_owned(), ..WriteOptions::default() };
            let answer = client.patch(&target, PatchKind::Strategic, patch, &options).await;
            let pod =
                answer.and_then(|value| core::Pod::from_value(value).map_err(Status::internal));
            Done::Written(pod.map(Box::new))
        });
        false
    }

    pub(super) fn written(&mut self, result: Result<Box<core::Pod>, Status>) {
        self.writing = false;
        match result {
            Ok(pod) => self.take_pod(Arc::new(*pod)),
            Err(status) if status.is_not_found() => self.gone = true,
            Err(status) => {
                tracing::debug!(pod = %self.model.long_name(), "status not written: {status}");
                self.said = None;
                self.write_held = Some(self.host.clock.now() + WRITE_RETRY);
            }
        }
    }

    /// The last step of a pod: deleted in the API, then forgotten here.
    pub(super) fn finish(&mut self) {
        if self.gone {
            self.leave();
            return;
        }
        if !self.model.pod.is_deleting() || self.deleting || self.write_held.is_some() {
            return;
        }
        self.deleting = true;
        let pod = &self.model.pod;
        let target = Target::object(&pods(), pod.namespace(), pod.name());
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(pod.uid().to_owned()),
            ..DeleteOptions::default()
        };
        let client = self.host.client.clone();
        self.spawn(
            "",
            async move { Done::Deleted(client.delete(&target, &options).await.map(drop)) },
        );
    }

    pub(super) fn deleted(&mut self, result: Result<(), Status>) {
        self.deleting = false;
        match result {
            // Finalizers may keep the object; on this node the pod is over all the same.
            Ok(()) => self.leave(),
            Err(status) if status.is_not_found() || status.is_conflict() => self.leave(),
            Err(status) => {
                tracing::debug!(pod = %self.model.long_name(), "not deleted: {status}");
                self.write_held = Some(self.host.clock.now() + WRITE_RETRY);
            }
        }
    }

    fn leave(&mut self) {
        let uid = self.model.pod.uid().to_owned();
        self.host.sources.release(&uid);
        self.host.images.forget(&uid);
        self.spawn_detached(ops::forget(self.host.clone(), uid));
        self.mailbox.left.store(true, std::sync::atomic::Ordering::SeqCst);
        self.ended = true;
    }
}
