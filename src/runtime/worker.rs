//! One pod's worker: keeps what is known of the pod, plans, and carries the steps out.
//!
//! Why events and operations: the worker itself never waits for the engine, a registry or the API.
//! Each step runs beside it and reports its end as an [`Event`]; so a slow pull can't keep a
//! deletion from being seen, and everything that changes a pod's state passes through one place.

mod ops;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::engine::{Container, EngineEvent, EventKind, State};
use super::plan::{self, End, Failed, Health, Plan, Restarts, Sandbox, Step, View};
use super::pods::{Model, Unit};
use super::probes::{self, ProbeKind};
use super::sources;
use super::status::Waiting;
use super::volumes::Volumes;
use super::{SharedHost, admission, assemble, labels};
use crate::object::Status;
use crate::reconcile::{EventType, Object};

/// Events that wait for one worker; at the bound the worker reads everything anew instead.
pub const EVENTS_MAX: usize = 256;
/// When something that failed without a word of its own is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// When an API write that failed is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(2);

/// Everything that can happen to a pod.
#[derive(Debug)]
pub enum Event {
    /// The API has a newer pod.
    Pod(Arc<core::Pod>),
    /// The API has the pod no more.
    Gone,
    /// All containers of the pod, as the engine lists them.
    Observed(Vec<Container>),
    /// The engine says that something happened to a container.
    Engine(EngineEvent),
    /// A ConfigMap or Secret that the pod names has changed.
    Sources,
    /// A probe's verdict changed.
    Probe {
        /// The container's id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// The verdict.
        good: bool,
    },
    /// A step has ended.
    Done(Done),
}

/// How a step ended.
#[derive(Debug)]
pub enum Done {
    /// Volumes, sandbox and network.
    Setup(Result<Ready, String>),
    /// A container's start.
    Start {
        /// Its name.
        name: String,
        /// The container, or why there is none.
        result: Result<Container, NotStarted>,
    },
    /// A container's end.
    Kill {
        /// Its name.
        name: String,
        /// As it is now.
        container: Option<Container>,
    },
    /// Sandbox, network and volumes are given back.
    TearDown(Result<(), String>),
    /// Volumes were refreshed.
    Refresh(Result<Option<Timestamp>, String>),
    /// A container's last words.
    Words {
        /// The container's id.
        id: String,
        /// What it said.
        text: String,
    },
    /// The status was written.
    Written(Result<Box<core::Pod>, Status>),
    /// The pod was deleted in the API.
    Deleted(Result<(), Status>),
    /// An operation ended without a result (a panic, or the node stops).
    Lost(String),
}

/// A pod that is ready to have containers.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The sandbox.
    pub sandbox: Container,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its volumes.
    pub volumes: Volumes,
    /// When tokens in its volumes have to be renewed.
    pub renew: Option<Timestamp>,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// What the status shows.
    pub waiting: Waiting,
    /// When to try again; `None` when only a change helps.
    pub retry: Option<Timestamp>,
    /// What is left of it.
    pub container: Option<Box<Container>>,
}

/// Where a worker's events go in.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: mpsc::Sender<Event>,
    overflow: Arc<AtomicBool>,
    left: Arc<AtomicBool>,
}

impl Mailbox {
    /// Hands over an event without waiting.
    pub fn send(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            self.overflow.store(true, Ordering::SeqCst);
        }
    }

    /// Whether the worker has ended because the pod is over here, though the API may still have it.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// Whether the worker has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A pod's worker.
pub struct Worker {
    host: SharedHost,
    mailbox: Mailbox,
    events: mpsc::Receiver<Event>,
    model: Arc<Model>,
    gone: bool,
    first_seen: Timestamp,
    sandbox: Option<Container>,
    sandboxes: u32,
    sandbox_id: Option<String>,
    addresses: Vec<IpAddr>,
    volumes: Volumes,
    renew: Option<Timestamp>,
    attempts: BTreeMap<String, Vec<Container>>,
    health: BTreeMap<String, Health>,
    probing: BTreeMap<(String, ProbeKind), CancellationToken>,
    waiting: BTreeMap<String, Waiting>,
    restarts: BTreeMap<String, Restarts>,
    held: BTreeMap<String, Timestamp>,
    busy: BTreeSet<String>,
    words: BTreeMap<String, String>,
    failure: Option<(String, String)>,
    torn_down: bool,
    refreshing: bool,
    stale_volumes: bool,
    writing: bool,
    deleting: bool,
    write_held: Option<Timestamp>,
    starts: CancellationToken,
    grace: i64,
    ended: bool,
}

impl Worker {
    /// A worker for a pod, with the containers that are there already.
    pub fn new(
        host: SharedHost,
        pod: Arc<core::Pod>,
        containers: Vec<Container>,
    ) -> (Mailbox, Self) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mailbox = Mailbox { sender, overflow: Arc::default(), left: Arc::default() };
        let model = Arc::new(Model::new(pod));
        let first_seen = host.clock.now();
        let grace = model.grace_seconds();
        let mut worker = Self {
            host,
            mailbox: mailbox.clone(),
            events,
            model,
            gone: false,
            first_seen,
            sandbox: None,
            sandboxes: 0,
            sandbox_id: None,
            addresses: Vec::new(),
            volumes: Volumes::new(),
            renew: None,
            attempts: BTreeMap::new(),
            health: BTreeMap::new(),
            probing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            restarts: BTreeMap::new(),
            held: BTreeMap::new(),
            busy: BTreeSet::new(),
            words: BTreeMap::new(),
            failure: None,
            torn_down: false,
            refreshing: false,
            stale_volumes: false,
            writing: false,
            deleting: false,
            write_held: None,
            starts: CancellationToken::new(),
            grace,
            ended: false,
        };
        worker.observe(containers);
        (mailbox, worker)
    }

    /// Works until the pod is gone from the node.
    pub async fn run(mut self) {
        let stop = self.host.tasks.stop_token();
        self.hold_sources();
        self.admit();
        loop {
            let wake = self.step();
            if self.ended {
                break;
            }
            let sleep = async {
                match wake {
                    Some(until) => {
                        let delay = until.duration_since(self.host.clock.now());
                        tokio::time::sleep(delay.try_into().unwrap_or(Duration::ZERO)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => break,
                },
                () = sleep => {}
                () = stop.cancelled() => break,
            }
            // What has come meanwhile is one pass, and one status.
            while let Ok(event) = self.events.try_recv() {
                self.take(event).await;
            }
            self.catch_up().await;
        }
        self.probing.values().for_each(CancellationToken::cancel);
        self.starts.cancel();
    }

    /// Reads everything anew when events were lost.
    async fn catch_up(&mut self) {
        if !self.mailbox.overflow.swap(false, Ordering::SeqCst) {
            return;
        }
        let pod = &self.model.pod;
        let (namespace, name, uid) = (pod.namespace(), pod.name(), pod.uid().to_owned());
        match self.host.pods.get(namespace, name).filter(|pod| pod.uid() == uid) {
            Some(pod) => self.take(Event::Pod(pod)).await,
            None => self.take(Event::Gone).await,
        }
        if let Ok(containers) = self.host.engine.list(labels::POD_UID, &uid).await {
            self.observe(containers);
        }
    }

    /// The node's own admission, for pods that have not started here.
    fn admit(&mut self) {
        let fresh = self.attempts.is_empty() && self.sandbox.is_none();
        if !fresh || self.model.is_terminal() || self.model.pod.is_deleting() {
            return;
        }
        let refusal = match assemble::unsupported(&self.model) {
            Some(field) => {
                let message = format!("{field} is not supported by this node");
                Some(("UnsupportedField".to_owned(), message))
            }
            None => admission::refuse(&self.host, &self.model.pod),
        };
        if let Some((reason, message)) = refusal {
            let model = &self.model;
            self.host.pod_event(model, EventType::Warning, &reason, message.clone());
            let message = format!("Pod was rejected: {message}");
            self.failure = Some((reason, message));
        }
    }

    fn hold_sources(&self) {
        let pod = &self.model.pod;
        self.host.sources.hold(pod.uid(), pod.namespace(), &sources::wanted(&self.model));
    }

    /// Takes an event in.
    async fn take(&mut self, event: Event) {
        match event {
            Event::Pod(pod) => self.take_pod(pod),
            Event::Gone => {
                self.gone = true;
                self.starts.cancel();
            }
            Event::Observed(containers) => self.observe(containers),
            Event::Engine(event) => self.take_engine(event).await,
            Event::Sources => {
                self.stale_volumes = true;
                // What failed for want of an object may work now.
                self.held.remove("");
                let config = |waiting: &Waiting| waiting.reason == "CreateContainerConfigError";
                let waiting = &self.waiting;
                self.held.retain(|name, _| !waiting.get(name).is_some_and(config));
            }
            Event::Probe { id, kind, good } => self.take_probe(&id, kind, good),
            Event::Done(done) => self.take_done(done),
        }
    }

    fn take_pod(&mut self, pod: Arc<core::Pod>) {
        let revision = |pod: &core::Pod| -> u64 {
            let text = pod.metadata.resource_version.as_deref().unwrap_or("");
            text.parse().unwrap_or(u64::MAX)
        };
        if revision(&pod) < revision(&self.model.pod) {
            return;
        }
        let before = self.model.clone();
        self.model = Arc::new(Model::new(pod));
        if before.pod.spec != self.model.pod.spec {
            self.hold_sources();
            self.held.clear();
        }
        let (old, new) = (&before.pod.metadata, &self.model.pod.metadata);
        if old.labels != new.labels || old.annotations != new.annotations {
            self.stale_volumes = true;
        }
        if self.model.pod.is_deleting() {
            self.starts.cancel();
            self.hurry();
        }
    }

    /// A shorter grace for a pod that is ending already.
    fn hurry(&mut self) {
        let grace = self.model.grace_seconds();
        if grace >= self.grace {
            return;
        }
        self.grace = grace;
        for name in &self.busy {
            if let Some(container) = plan::newest(&self.attempts, name)
                && plan::runs(Some(container))
            {
                self.spawn_detached(ops::stop_now(self.host.clone(), container.id.clone(), grace));
            }
        }
    }

    /// Takes in the engine's whole list.
    fn observe(&mut self, containers: Vec<Container>) {
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
        self.sandboxes = sandboxes.last().map_or(self.sandboxes, |last| {
            self.sandboxes.max(plan::attempt_of(last) + 1)
        });
        self.sandbox = sandboxes.pop();
        self.settle();
    }

    /// Brings health, sandbox and last words in line with the containers.
    fn settle(&mut self) {
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

    async fn take_engine(&mut self, event: EngineEvent) {
        let Some(name) = event.labels.get(labels::CONTAINER).cloned() else { return };
        if event.kind == EventKind::Removed {
            self.forget_container(&name, &event.id);
            return;
        }
        match self.host.engine.inspect(&event.id).await {
            Ok(container) => self.put(&name, container),
            Err(super::engine::EngineError::NotFound(_)) => {
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
            let newer = self.sandbox.as_ref().is_none_or(|known| {
                plan::attempt_of(&container) >= plan::attempt_of(known)
            });
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

    fn take_probe(&mut self, id: &str, kind: ProbeKind, good: bool) {
        let Some(health) = self.health.get_mut(id) else { return };
        match (kind, good) {
            (ProbeKind::Startup, true) => health.started = true,
            (ProbeKind::Startup, false) => health.failed = Some(Failed::Startup),
            (ProbeKind::Readiness, good) => health.ready = good,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Liveness, false) => health.failed = Some(Failed::Liveness),
        }
        if kind != ProbeKind::Readiness {
            self.probing.remove(&(id.to_owned(), kind));
        }
    }

    fn take_done(&mut self, done: Done) {
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

    fn end(&self) -> Option<End> {
        if self.gone || self.model.pod.is_deleting() {
            return Some(End::Deleted);
        }
        self.failure.as_ref().map(|_| End::Failed)
    }

    fn sandbox_state(&self) -> Sandbox {
        match &self.sandbox {
            Some(sandbox) if self.sandbox_id.as_ref() == Some(&sandbox.id) => Sandbox::Ready,
            Some(sandbox) if plan::runs(Some(sandbox)) => Sandbox::Found,
            _ => Sandbox::None { next: self.sandboxes },
        }
    }

    /// Plans, starts what is due, reports; returns when to look again.
    fn step(&mut self) -> Option<Timestamp> {
        let deadline = self.check_deadline();
        let now = self.host.clock.now();
        self.held.retain(|_, until| *until > now);
        let view = View {
            model: &self.model,
            sandbox: self.sandbox_state(),
            attempts: &self.attempts,
            health: &self.health,
            busy: &self.busy,
            restarts: &self.restarts,
            held: &self.held,
            end: self.end(),
            torn_down: self.torn_down,
            now,
        };
        let Plan { steps, wake } = plan::plan(&view);
        let finished = steps.contains(&Step::Finished);
        for step in steps {
            self.carry_out(step);
        }
        self.probe();
        self.refresh(now);
        let idle = self.report();
        if finished && idle {
            self.finish();
        }
        let times = [wake, deadline, self.renew, self.write_held];
        times.into_iter().flatten().filter(|time| *time > now || self.write_held.is_some()).min()
    }

    /// `activeDeadlineSeconds`.
    fn check_deadline(&mut self) -> Option<Timestamp> {
        let seconds = self.model.spec().active_deadline_seconds?;
        let status = self.model.pod.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        let started = started.map_or(self.first_seen, |time| time.0);
        let deadline = started + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let over = self.model.is_terminal() || self.failure.is_some() || self.end().is_some();
        if over || plan::is_over(&self.model, &self.attempts) {
            return None;
        }
        if deadline > self.host.clock.now() {
            return Some(deadline);
        }
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        let model = &self.model;
        self.host.pod_event(model, EventType::Normal, "DeadlineExceeded", message.clone());
        self.failure = Some(("DeadlineExceeded".to_owned(), message));
        self.starts.cancel();
        None
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Setup { attempt } => self.start_setup(attempt),
            Step::Start { name, attempt, restarts } => {
                if let Some(restarts) = restarts {
                    self.restarts.insert(name.clone(), restarts);
                }
                self.start_container(&name, attempt);
            }
            Step::Kill { name, id, message, because } => {
                self.kill_container(&name, &id, message, because);
            }
            Step::BackOff { name, delay, .. } => self.back_off(&name, delay),
            Step::TearDown => {
                if !self.held.contains_key("") {
                    self.start_teardown();
                }
            }
            Step::Finished => {}
        }
    }

    fn back_off(&mut self, name: &str, delay: Duration) {
        let pod = self.model.long_name();
        let message = format!(
            "back-off {} restarting failed container={name} pod={pod}",
            go_duration(delay)
        );
        let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
        if self.waiting.insert(name.to_owned(), waiting.clone()) == Some(waiting) {
            return;
        }
        if let Some(unit) = self.model.unit(name) {
            let message = format!("Back-off restarting failed container {name} in pod {pod}");
            self.host.unit_event(&self.model, unit, EventType::Warning, "BackOff", message);
        }
    }

    /// Starts the probes that containers should have and don't.
    fn probe(&mut self) {
        if self.end().is_some() {
            let quiet = |kind: ProbeKind| kind != ProbeKind::Readiness;
            for ((_, kind), stop) in &self.probing {
                if quiet(*kind) {
                    stop.cancel();
                }
            }
            self.probing.retain(|(_, kind), _| !quiet(*kind));
            return;
        }
        for unit in self.model.units.clone() {
            if !assemble::has_life(unit.kind) || self.busy.contains(unit.name()) {
                continue;
            }
            let Some(container) = plan::newest(&self.attempts, unit.name()).cloned() else {
                continue;
            };
            let Some(health) = self.health.get(&container.id).copied() else { continue };
            if health.failed.is_some() || self.sandbox_id.is_none() {
                continue;
            }
            for kind in ProbeKind::ALL {
                let due = (kind == ProbeKind::Startup) != health.started;
                let key = (container.id.clone(), kind);
                if due && kind.of(&unit).is_some() && !self.probing.contains_key(&key) {
                    self.start_probe(&unit, &container, kind);
                }
            }
        }
    }

    fn start_probe(&mut self, unit: &Unit, container: &Container, kind: ProbeKind) {
        let State::Running { started_at, .. } = container.state else { return };
        let age = self.host.clock.now().duration_since(started_at);
        let subject = probes::Subject {
            model: self.model.clone(),
            unit: unit.clone(),
            id: container.id.clone(),
            address: self.address(),
            age: age.try_into().unwrap_or(Duration::ZERO),
        };
        let stop = CancellationToken::new();
        self.probing.insert((container.id.clone(), kind), stop.clone());
        let (mailbox, id) = (self.mailbox.clone(), container.id.clone());
        let tell = move |good| {
            mailbox.send(Event::Probe { id: id.clone(), kind, good });
            kind == ProbeKind::Readiness || (kind == ProbeKind::Liveness && good)
        };
        let watch = probes::watch(self.host.clone(), kind, subject, tell);
        self.spawn_detached(async move {
            tokio::select! {
                () = watch => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// The address at which probes and hooks find the pod.
    fn address(&self) -> Option<IpAddr> {
        match self.model.host_network() {
            true => Some(self.host.config.ip),
            false => self.addresses.first().copied(),
        }
    }

    /// Refreshes volumes when what they show has changed or a token grows old.
    fn refresh(&mut self, now: Timestamp) {
        let due = self.stale_volumes || self.renew.is_some_and(|renew| renew <= now);
        if !due || self.refreshing || self.sandbox_id.is_none() || self.end().is_some() {
            return;
        }
        (self.refreshing, self.stale_volumes, self.renew) = (true, false, None);
        let refresh = ops::refresh(self.host.clone(), self.model.clone(), self.addresses.clone());
        self.spawn("", async move { Done::Refresh(refresh.await) });
    }

    /// Runs an operation whose end comes back as an event.
    fn spawn(&self, key: &str, operation: impl Future<Output = Done> + Send + 'static) {
        let guard = Guard { mailbox: self.mailbox.clone(), key: key.to_owned(), armed: true };
        self.spawn_detached(async move {
            let mut guard = guard;
            let done = operation.await;
            guard.armed = false;
            // The worker always takes what its own operations report, so this waits shortly.
            guard.mailbox.sender.send(Event::Done(done)).await.ok();
        });
    }

    fn spawn_detached(&self, operation: impl Future<Output = ()> + Send + 'static) {
        let stop = self.host.tasks.stop_token();
        self.host.tasks.spawn_once(format!("pod {}", self.model.pod.name()), async move {
            tokio::select! {
                () = operation => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Tells the worker when an operation ends without a result.
struct Guard {
    mailbox: Mailbox,
    key: String,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.mailbox.send(Event::Done(Done::Lost(self.key.clone())));
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

/// A duration as Go prints it: "10s", "2m40s", "5m0s".
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
