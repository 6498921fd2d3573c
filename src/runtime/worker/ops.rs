//! The steps of a pod carried out: setup, start, kill, teardown. Each is one future that ends in a
//! [`Done`]; none touches the worker.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::setup::{remove_named, setup, snapshot};
use super::{Done, NotStarted, RETRY, Worker};
use crate::reconcile::informer::Followed;
use crate::reconcile::{EventType, Object};
use crate::runtime::assemble::{self, Parts};
use crate::runtime::engine::{Container, EngineError, LogQuery, Output, State};
use crate::runtime::env::Snapshot;
use crate::runtime::plan::{self, Failed};
use crate::runtime::pods::{Model, Unit};
use crate::runtime::probes::ProbeKind;
use crate::runtime::status::Waiting;
use crate::runtime::volumes::{self, Volumes};
use crate::runtime::{Host, SharedHost, hooks, images, labels};

/// Bytes of a termination message (upstream's).
const WORDS_BYTES_MAX: usize = 4096;
/// Bytes and lines of a log that stand in for one.
const WORDS_LOG_BYTES_MAX: usize = 2048;
/// Lines of a log that stand in for one.
const WORDS_LOG_LINES_MAX: u64 = 80;
/// The least that a container gets to end after its hook has used up the grace.
const GRACE_MIN: Duration = Duration::from_secs(2);
/// How long the first reading of all Services may take.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts of a container that are kept: the newest and the one before.
const KEPT_ATTEMPTS: usize = 2;

impl Worker {
    pub(super) fn start_setup(&mut self, attempt: u32) {
        self.busy.insert(String::new());
        let existing = self.sandbox.clone();
        let (host, model) = (self.host.clone(), self.model.clone());
        self.spawn("", async move {
            let result = setup(&host, &model, attempt, existing).await;
            Done::Setup(result)
        });
    }

    pub(super) fn start_container(&mut self, name: &str, attempt: u32) {
        let (Some(unit), Some(sandbox)) = (self.model.unit(name), self.sandbox_id.clone()) else {
            return;
        };
        self.busy.insert(name.to_owned());
        let target = unit.target.as_ref().and_then(|target| {
            plan::newest(&self.attempts, target).map(|container| container.id.clone())
        });
        let list = self.attempts.get(name).map(Vec::as_slice).unwrap_or_default();
        let old = list.iter().rev().skip(KEPT_ATTEMPTS - 1).map(|container| container.id.clone());
        // One that was made but never started has the name that the next one needs.
        let half = list.last().filter(|last| last.state == State::Created);
        let start = Start {
            host: self.host.clone(),
            model: self.model.clone(),
            unit: unit.clone(),
            attempt,
            sandbox,
            target,
            volumes: self.volumes.clone(),
            addresses: self.addresses.clone(),
            address: self.address(),
            remove: half.map(|half| half.id.clone()).into_iter().chain(old).collect(),
            stop: self.starts.clone(),
        };
        let name = name.to_owned();
        self.spawn(&name.clone(), async move {
            let result = start.run().await;
            Done::Start { name, result }
        });
    }

    pub(super) fn kill_container(
        &mut self,
        name: &str,
        id: &str,
        message: String,
        because: Option<Failed>,
    ) {
        let Some(unit) = self.model.unit(name) else { return };
        self.busy.insert(name.to_owned());
        self.host.unit_event(&self.model, unit, EventType::Normal, "Killing", message);
        let kill = Kill {
            host: self.host.clone(),
            model: self.model.clone(),
            unit: unit.clone(),
            id: id.to_owned(),
            grace: grace(&self.model, unit, because, self.grace),
            address: self.address(),
        };
        let name = name.to_owned();
        self.spawn(&name.clone(), async move {
            let container = kill.run().await;
            Done::Kill { name, container }
        });
    }

    pub(super) fn start_teardown(&mut self) {
        self.busy.insert(String::new());
        self.sandbox_id = None;
        let sandbox = self.sandbox.take();
        let (host, model) = (self.host.clone(), self.model.clone());
        self.spawn("", async move { Done::TearDown(teardown(&host, &model, sandbox).await) });
    }
}

fn grace(model: &Model, unit: &Unit, because: Option<Failed>, grace: i64) -> Duration {
    let kind = match because {
        Some(Failed::Liveness) => Some(ProbeKind::Liveness),
        Some(Failed::Startup) => Some(ProbeKind::Startup),
        None => None,
    };
    let own = kind
        .and_then(|kind| kind.of(unit))
        .and_then(|probe| probe.termination_grace_period_seconds)
        .filter(|_| !model.pod.is_deleting());
    Duration::from_secs(u64::try_from(own.unwrap_or(grace)).unwrap_or(0))
}

/// A stop with a shorter grace, beside one that is under way.
pub(super) async fn stop_now(host: SharedHost, id: String, grace: i64) {
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    if let Err(error) = host.engine.stop(&id, grace).await {
        tracing::debug!(container = %id, "stop: {error}");
    }
}

/// A container's start.
struct Start {
    host: SharedHost,
    model: Arc<Model>,
    unit: Unit,
    attempt: u32,
    sandbox: String,
    target: Option<String>,
    volumes: Volumes,
    addresses: Vec<IpAddr>,
    address: Option<IpAddr>,
    remove: Vec<String>,
    stop: CancellationToken,
}

impl Start {
    async fn run(self) -> Result<Container, NotStarted> {
        for id in &self.remove {
            self.host.engine.remove(id).await.ok();
        }
        let prepare = async {
            let snapshot = self.snapshot().await.map_err(|error| self.config_error(error))?;
            let image =
                images::ensure(&self.host, &self.model, &self.unit, &snapshot.secrets).await;
            let image = image.map_err(|refused| NotStarted {
                waiting: refused.waiting,
                retry: refused.retry,
                container: None,
            })?;
            Ok((snapshot, image))
        };
        let (snapshot, image) = tokio::select! {
            prepared = prepare => prepared?,
            // The pod ends: what has not been made need not be.
            () = self.stop.cancelled() => return Err(self.failed("ContainerCreating", "")),
        };
        let parts = Parts {
            attempt: self.attempt,
            sandbox: &self.sandbox,
            image: &image,
            snapshot: &snapshot,
            volumes: &self.volumes,
            target: self.target.as_deref(),
        };
        let spec = assemble::container(&self.host, &self.model, &self.unit, &parts);
        let spec = spec.map_err(|error| self.config_error(error))?;
        let id = match self.create(&spec).await {
            Ok(id) => id,
            Err(error) => {
                self.tell_failure(&error.to_string());
                return Err(self.failed("CreateContainerError", &error.to_string()));
            }
        };
        self.tell("Created", "Container created");
        if let Err(error) = self.host.engine.start(&id).await {
            self.tell_failure(&error.to_string());
            let mut failed = self.failed("RunContainerError", &error.to_string());
            failed.container = self.host.engine.inspect(&id).await.ok().map(Box::new);
            // It counts as ended, and the restart's own back-off applies.
            failed.retry = Some(self.host.clock.now());
            return Err(failed);
        }
        self.tell("Started", "Container started");
        self.post_start(&id).await?;
        self.host
            .engine
            .inspect(&id)
            .await
            .map_err(|error| self.failed("ContainerStatusUnknown", &error.to_string()))
    }

    async fn create(
        &self,
        spec: &crate::runtime::engine::ContainerSpec,
    ) -> Result<String, EngineError> {
        match self.host.engine.create(spec).await {
            Err(EngineError::Conflict(_)) => {
                remove_named(&self.host, &self.model, self.unit.name(), self.attempt).await?;
                self.host.engine.create(spec).await
            }
            other => other,
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, String> {
        let services = &self.host.services;
        let synced = tokio::time::timeout(SERVICES_TIMEOUT, services.synced()).await;
        synced.map_err(|_| {
            "services have not yet been read at least once, cannot construct envvars".to_owned()
        })?;
        let mut found = snapshot(&self.host, &self.model, &self.addresses).await?;
        found.services = services.list(self.model.pod.namespace());
        found.services.extend(services.get("default", "kubernetes"));
        Ok(found)
    }

    async fn post_start(&self, id: &str) -> Result<(), NotStarted> {
        let lifecycle = self.unit.spec.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let run = hooks::run(&self.host, &self.unit, id, self.address, hook);
        let end = tokio::select! {
            end = run => end,
            () = self.stop.cancelled() => return Ok(()),
        };
        let Err(error) = end else { return Ok(()) };
        self.host.unit_event(
            &self.model,
            &self.unit,
            EventType::Warning,
            "FailedPostStartHook",
            "PostStartHook failed".to_owned(),
        );
        let kill = Kill {
            host: self.host.clone(),
            model: self.model.clone(),
            unit: self.unit.clone(),
            id: id.to_owned(),
            grace: Duration::from_secs(u64::try_from(self.model.grace_seconds()).unwrap_or(0)),
            address: self.address,
        };
        let mut failed = self.failed("PostStartHookError", &error);
        failed.container = kill.run().await.map(Box::new);
        failed.retry = Some(self.host.clock.now());
        Err(failed)
    }

    fn tell(&self, reason: &str, message: &str) {
        let (model, unit) = (&self.model, &self.unit);
        self.host.unit_event(model, unit, EventType::Normal, reason, message.to_owned());
    }

    fn tell_failure(&self, error: &str) {
        let message = format!("Error: {error}");
        self.host.unit_event(&self.model, &self.unit, EventType::Warning, "Failed", message);
    }

    fn config_error(&self, error: String) -> NotStarted {
        self.tell_failure(&error);
        self.failed("CreateContainerConfigError", &error)
    }

    fn failed(&self, reason: &str, message: &str) -> NotStarted {
        NotStarted {
            waiting: Waiting { reason: reason.to_owned(), message: message.to_owned() },
            retry: Some(self.host.clock.now() + RETRY),
            container: None,
        }
    }
}

/// A container's end.
struct Kill {
    host: SharedHost,
    model: Arc<Model>,
    unit: Unit,
    id: String,
    grace: Duration,
    address: Option<IpAddr>,
}

impl Kill {
    async fn run(self) -> Option<Container> {
        let started = self.host.clock.monotonic();
        let lifecycle = self.unit.spec.lifecycle.as_ref();
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let mut grace = self.grace;
        if let Some(hook) = hook.filter(|_| !self.grace.is_zero()) {
            let run = hooks::run(&self.host, &self.unit, &self.id, self.address, hook);
            if let Ok(Err(error)) = tokio::time::timeout(self.grace, run).await {
                tracing::debug!(container = %self.id, "preStop: {error}");
                self.host.unit_event(
                    &self.model,
                    &self.unit,
                    EventType::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed".to_owned(),
                );
            }
            let used = self.host.clock.monotonic().saturating_sub(started);
            grace = self.grace.saturating_sub(used).max(GRACE_MIN);
        }
        match self.host.engine.stop(&self.id, grace).await {
            Ok(()) | Err(EngineError::NotFound(_)) => {}
            Err(error) => {
                let message = format!("error killing pod: {error}");
                self.host.pod_event(&self.model, EventType::Warning, "FailedKillPod", message);
            }
        }
        self.host.engine.inspect(&self.id).await.ok()
    }
}

/// What a container said at its end.
pub(super) async fn last_words(
    host: SharedHost,
    model: Arc<Model>,
    unit: Unit,
    container: Container,
) -> Done {
    let pod_dir = host.config.pod_dir(model.pod.uid());
    let attempt = plan::attempt_of(&container);
    let file = assemble::termination_file(&pod_dir, unit.name(), attempt);
    let mut text = tokio::fs::read(&file).await.unwrap_or_default();
    text.truncate(WORDS_BYTES_MAX);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    let failed = !matches!(container.state, State::Exited { code: 0, .. });
    let fall_back =
        unit.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if text.is_empty() && failed && fall_back {
        text = log_end(&host, &container.id).await;
    }
    Done::Words { id: container.id, text }
}

async fn log_end(host: &Host, id: &str) -> String {
    let query = LogQuery {
        tail: Some(WORDS_LOG_LINES_MAX),
        stdout: true,
        stderr: true,
        ..LogQuery::default()
    };
    let Ok(mut stream) = host.engine.logs(id, &query).await else { return String::new() };
    let mut bytes = Vec::new();
    while let Some(Ok(Output::Stdout(chunk) | Output::Stderr(chunk))) = stream.next().await {
        bytes.extend_from_slice(&chunk);
        let over = bytes.len().saturating_sub(WORDS_LOG_BYTES_MAX);
        bytes.drain(..over);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Gives back sandbox, network and volumes. Containers stay for their logs.
async fn teardown(host: &Host, model: &Model, sandbox: Option<Container>) -> Result<(), String> {
    let uid = model.pod.uid();
    if !model.host_network() {
        host.network.detach(uid).await.map_err(|error| format!("{error:#}"))?;
    }
    if let Some(sandbox) = sandbox {
        host.engine.remove(&sandbox.id).await.map_err(|error| error.to_string())?;
    }
    let pod_dir = host.config.pod_dir(uid);
    let clean = move || {
        // Last words stay as long as their containers.
        volumes::clean(&pod_dir.join("volume-subpaths"))?;
        volumes::clean(&pod_dir.join("volumes"))
    };
    let cleaned = tokio::task::spawn_blocking(clean).await.map_err(|error| error.to_string())?;
    cleaned.map_err(|error| error.to_string())
}

/// Removes all containers and files of a pod that is gone.
pub(super) async fn forget(host: SharedHost, uid: String) {
    match host.engine.list(labels::POD_UID, &uid).await {
        Ok(containers) => {
            for container in containers {
                if let Err(error) = host.engine.remove(&container.id).await {
                    tracing::warn!(container = %container.id, "cannot be removed: {error}");
                }
            }
        }
        Err(error) => tracing::warn!(pod = %uid, "containers cannot be removed: {error}"),
    }
    let pod_dir = host.config.pod_dir(&uid);
    let cleaned = tokio::task::spawn_blocking(move || volumes::clean(&pod_dir)).await;
    if let Ok(Err(error)) = cleaned {
        tracing::warn!(pod = %uid, "its folder cannot be removed: {error}");
    }
}
