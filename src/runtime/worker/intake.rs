//! Taking events in: what the engine and the worker's own operations report becomes its state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Done, NotStarted, RETRY, Ready, Worker, ops};
use crate::reconcile::EventType;
use crate::runtime::engine::{Container, EngineError, EngineEvent, EventKind, State};
use crate::runtime::plan::{self, Health};
use crate::runtime::pods::{Model, Unit};
use crate::runtime::{assemble, labels};

impl Worker {
    /// Takes in the engine's whole list.
    pub(super) fn observe(&mut self, containers: Vec<Container>) {
        let (mut sandboxes, mut attempts) = (Vec::new(), BTreeMap::<String, Vec<Container>>::new());
        for container in containers {
            let Some(name) = container.labels.get(labels::CONTAINER).cloned() else { continue };
            match name.as_str() {
                labels::SANDBOX_NAME => sandboxes.push(container),
                _ => attempts.entry(name).or_default().push(container),
            }
        }
        for list in attempts.values_mut() {
            list.sort_by_key(|container| (plan::attempt_of(container), container.created_at));
        }
        self.attempts = attempts;
        sandboxes.sort_by_key(plan::attempt_of);
        self.sandboxes = sandboxes
            .last()
            .map_or(self.sandboxes, |last| self.sandboxes.max(plan::attempt_of(last) + 1));
        self.sandbox = sandboxes.pop();
        self.settle();
    }

    /// Brings health, sandbox and last words in line with the containers.
    pub(super) fn settle(&mut self) {
        if !plan::runs(self.sandbox.as_ref()) {
            self.sandbox_id = None;
        }
        let mut live = BTreeSet::new();
        let mut ended = Vec::new();
        for unit in &self.model.units {
            let Some(container) = plan::newest(&self.attempts, unit.name()) else { continue };
            if plan::runs(Some(container)) {
                live.insert(container.id.clone());
                let health = first_health(&self.model, unit, container);
                self.health.entry(container.id.clone()).or_insert(health);
            } else if plan::exit_code(Some(container)).is_some() {
                ended.push((unit.clone(), container.clone()));
            }
        }
        self.health.retain(|id, _| live.contains(id));
        self.probing.retain(|(id, _), stop| {
            let stays = live.contains(id);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for (unit, container) in ended {
            if !self.words.contains_key(&container.id) {
                // Only once; the text follows.
                self.words.insert(container.id.clone(), String::new());
                let (host, model) = (self.host.clone(), self.model.clone());
                self.spawn("", ops::last_words(host, model, unit, container));
            }
        }
    }

    pub(super) async fn take_engine(&mut self, event: EngineEvent) {
        let Some(name) = event.labels.get(labels::CONTAINER).cloned() else { return };
        if event.kind == EventKind::Removed {
            self.forget_container(&name, &event.id);
            return;
        }
        match self.host.engine.inspect(&event.id).await {
            Ok(container) => self.put(&name, container),
            Err(EngineError::NotFound(_)) => {
                self.forget_container(&name, &event.id);
            }
            Err(error) => {
                tracing::debug!(container = %event.id, "cannot be inspected: {error}");
                self.mailbox.overflow.store(true, Ordering::SeqCst);
            }
        }
    }

    fn forget_container(&mut self, name: &str, id: &str) {
        if name == labels::SANDBOX_NAME {
            if self.sandbox.as_ref().is_some_and(|sandbox| sandbox.id == id) {
                self.sandbox = None;
            }
        } else if let Some(list) = self.attempts.get_mut(name) {
            list.retain(|container| container.id != id);
            if list.is_empty() {
                self.attempts.remove(name);
            }
        }
        self.words.remove(id);
        self.settle();
    }

    /// Takes in one container's new state. A state seen later is never replaced by an earlier one.
    fn put(&mut self, name: &str, container: Container) {
        if name == labels::SANDBOX_NAME {
            self.sandboxes = self.sandboxes.max(plan::attempt_of(&container) + 1);
            let newer = self
                .sandbox
                .as_ref()
                .is_none_or(|known| plan::attempt_of(&container) >= plan::attempt_of(known));
            if newer {
                self.sandbox = Some(container);
            }
            self.settle();
            return;
        }
        let list = self.attempts.entry(name.to_owned()).or_default();
        match list.iter_mut().find(|known| known.id == container.id) {
            Some(known) if matches!(known.state, State::Exited { .. }) => {}
            Some(known) => *known = container,
            None => {
                list.push(container);
                list.sort_by_key(plan::attempt_of);
            }
        }
        self.settle();
    }

    pub(super) fn take_done(&mut self, done: Done) {
        match done {
            Done::Setup(result) => {
                self.busy.remove("");
                self.set_up(result);
            }
            Done::Start { name, result } => {
                self.busy.remove(&name);
                self.started(&name, result);
            }
            Done::Kill { name, container } => {
                self.busy.remove(&name);
                if let Some(container) = container {
                    self.put(&name, container);
                }
            }
            Done::TearDown(result) => {
                self.busy.remove("");
                match result {
                    Ok(()) => self.torn_down = true,
                    Err(error) => {
                        tracing::warn!(pod = %self.model.long_name(), "teardown: {error}");
                        self.hold("", RETRY);
                    }
                }
            }
            Done::Refresh(result) => {
                self.refreshing = false;
                match result {
                    Ok(renew) => self.renew = renew,
                    Err(error) => {
                        let model = &self.model;
                        self.host.pod_event(model, EventType::Warning, "FailedMount", error);
                        self.renew = Some(self.host.clock.now() + RETRY);
                    }
                }
            }
            Done::Words { id, text } => {
                self.words.insert(id, text);
            }
            Done::Written(result) => self.written(result),
            Done::Deleted(result) => self.deleted(result),
            Done::Lost(key) => {
                self.busy.remove(&key);
                self.hold(&key, RETRY);
                (self.refreshing, self.writing, self.deleting) = (false, false, false);
            }
        }
    }

    fn hold(&mut self, name: &str, delay: Duration) {
        self.held.insert(name.to_owned(), self.host.clock.now() + delay);
    }

    fn set_up(&mut self, result: Result<Ready, String>) {
        match result {
            Ok(ready) => {
                self.sandbox_id = Some(ready.sandbox.id.clone());
                self.put(labels::SANDBOX_NAME, ready.sandbox);
                self.addresses = ready.addresses;
                self.volumes = ready.volumes;
                self.renew = ready.renew;
                self.torn_down = false;
            }
            Err(error) => {
                tracing::debug!(pod = %self.model.long_name(), "setup: {error}");
                self.hold("", RETRY);
            }
        }
    }

    fn started(&mut self, name: &str, result: Result<Container, NotStarted>) {
        match result {
            Ok(container) => {
                self.waiting.remove(name);
                self.held.remove(name);
                self.put(name, container);
            }
            Err(failed) => {
                self.waiting.insert(name.to_owned(), failed.waiting);
                if let Some(container) = failed.container {
                    self.put(name, *container);
                }
                let retry = failed.retry.unwrap_or_else(|| self.host.clock.now() + RETRY * 30);
                self.held.insert(name.to_owned(), retry);
            }
        }
    }
}

/// What is known of a container's health before any probe: an adopted one keeps what the API says.
fn first_health(model: &Model, unit: &Unit, container: &Container) -> Health {
    let probed = assemble::has_life(unit.kind);
    let old = model.old_status(unit.name()).filter(|old| {
        let id = old.container_id.as_deref().and_then(|id| id.strip_prefix("docker://"));
        id == Some(&container.id)
    });
    let known = |then: Option<bool>, probe: bool| !probe || !probed || then == Some(true);
    Health {
        started: known(old.and_then(|old| old.started), unit.spec.startup_probe.is_some()),
        ready: known(old.map(|old| old.ready), unit.spec.readiness_probe.is_some()),
        failed: None,
    }
}
