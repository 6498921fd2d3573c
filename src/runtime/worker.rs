//! One pod's worker: keeps what is known of the pod, plans, and carries the steps out.
//!
//! Why events and operations: the worker itself never waits for the engine, a registry or the API.
//! Each step runs beside it and reports its end as an [`Event`]; so a slow pull can't keep a
//! deletion from being seen, and everything that changes a pod's state passes through one place.

mod event;
mod intake;
mod ops;
mod report;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::engine::{Container, State};
use super::plan::{self, End, Failed, Health, Plan, Restarts, Sandbox, Step, View};
use super::pods::{Model, Unit};
use super::probes::{self, ProbeKind};
use super::sources;
use super::status::Waiting;
use super::volumes::Volumes;
use super::{SharedHost, admission, assemble, labels};
use crate::object::Value;
use crate::reconcile::{EventType, Object};

pub use event::{Done, Event, NotStarted, Ready};

/// Events that wait for one worker; at the bound the worker reads everything anew instead.
pub const EVENTS_MAX: usize = 256;
/// When something that failed without a word of its own is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// When an API write that failed is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(2);

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
    said: Option<(Option<String>, Value)>,
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
            said: None,
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
        let message =
            format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay));
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
        let refresh = setup::refresh(self.host.clone(), self.model.clone(), self.addresses.clone());
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

/// A duration as Go prints it: "10s", "2m40s", "5m0s".
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
