//! What to do next for a pod: a pure function of its spec, its containers, its probes and the time.
//!
//! Why pure: every rule about order, restarts, back-off and ends is here and nowhere else, so a
//! test can put a pod into any state and read the answer. The worker only carries out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::engine::{Container, State};
use super::pods::{Kind, Model, Unit};

/// First delay of a container that keeps ending (upstream's).
pub const RESTART_DELAY: Duration = Duration::from_secs(10);
/// No delay is longer.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts with the first delay again.
pub const RESTART_FORGET: Duration = Duration::from_secs(600);

/// The pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none; the next one has this number.
    None {
        /// The number.
        next: u32,
    },
    /// It stands, but this process has not looked at its network and volumes yet.
    Found,
    /// It holds the namespaces, and the network is attached.
    Ready,
}

/// What probes say of a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The startup probe, if any, has succeeded.
    pub started: bool,
    /// The readiness probe, if any, succeeds.
    pub ready: bool,
    /// A probe demands its end.
    pub failed: Option<Failed>,
}

/// The probe that demands a container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is no longer alive.
    Liveness,
    /// It did not come up.
    Startup,
}

/// How long restarts of a container wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// The present delay.
    pub delay: Duration,
    /// When it was set.
    pub since: Timestamp,
}

/// Why everything of the pod has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The pod is deleted, or gone.
    Deleted,
    /// It failed as a whole: deadline, admission, unsupported field.
    Failed,
}

/// Everything that a plan looks at.
pub struct View<'a> {
    /// The pod.
    pub model: &'a Model,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// The containers of each name, oldest first.
    pub attempts: &'a BTreeMap<String, Vec<Container>>,
    /// What probes say, by container id.
    pub health: &'a BTreeMap<String, Health>,
    /// Containers with a step under way; "" is the pod itself.
    pub busy: &'a BTreeSet<String>,
    /// Restart delays, by container name.
    pub restarts: &'a BTreeMap<String, Restarts>,
    /// Starts that failed and may be tried again from a time on, by container name.
    pub held: &'a BTreeMap<String, Timestamp>,
    /// Why the pod has to end, if it has to.
    pub end: Option<End>,
    /// The volumes and network have been given back.
    pub torn_down: bool,
    /// Now.
    pub now: Timestamp,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Prepare volumes, make the sandbox, attach the network.
    Setup {
        /// The sandbox's number.
        attempt: u32,
    },
    /// Start a container.
    Start {
        /// Its name.
        name: String,
        /// How many there were before.
        attempt: u32,
        /// The delay of the next restart.
        restarts: Option<Restarts>,
    },
    /// End a container.
    Kill {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
        /// Why, in upstream's words.
        message: String,
        /// A probe asked for it.
        because: Option<Failed>,
    },
    /// A container waits for its restart.
    BackOff {
        /// Its name.
        name: String,
        /// The delay.
        delay: Duration,
        /// Until then.
        until: Timestamp,
    },
    /// Remove the sandbox, give back network and volumes.
    TearDown,
    /// Nothing of the pod is left to do.
    Finished,
}

/// The next steps, and when to look again even if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// May be carried out all at once.
    pub steps: Vec<Step>,
    /// The next time at which something is due.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |known| known.min(time)));
    }
}

/// The newest container of a name.
pub fn newest<'a>(
    attempts: &'a BTreeMap<String, Vec<Container>>,
    name: &str,
) -> Option<&'a Container> {
    attempts.get(name).and_then(|list| list.last())
}

/// Whether a restart waits, or the delay that the next one gets.
pub fn back_off(
    known: Option<Restarts>,
    finished_at: Timestamp,
    now: Timestamp,
) -> Result<Restarts, (Duration, Timestamp)> {
    let Some(known) = known.filter(|known| finished_at <= known.since + RESTART_FORGET) else {
        return Ok(Restarts { delay: RESTART_DELAY, since: now });
    };
    let until = finished_at + known.delay;
    if now < until {
        return Err((known.delay, until));
    }
    Ok(Restarts { delay: (known.delay * 2).min(RESTART_DELAY_MAX), since: now })
}

/// The number that the next container of this name gets.
fn next_attempt(view: &View<'_>, name: &str) -> u32 {
    match newest(view.attempts, name) {
        Some(container) if container.state == State::Created => attempt_of(container),
        Some(container) => attempt_of(container) + 1,
        // The engine has forgotten it, the API server has not.
        None => match view.model.old_status(name) {
            Some(old) if old.container_id.is_some() => old.restart_count as u32 + 1,
            Some(old) => old.restart_count as u32,
            None => 0,
        },
    }
}

/// The attempt that a container's label tells.
pub fn attempt_of(container: &Container) -> u32 {
    let label = container.labels.get(super::labels::ATTEMPT);
    label.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How a container ended, if it did.
pub fn exit_code(container: Option<&Container>) -> Option<i32> {
    match container.map(|container| &container.state) {
        Some(State::Exited { code, .. }) => Some(*code),
        _ => None,
    }
}

/// Whether a container runs.
pub fn runs(container: Option<&Container>) -> bool {
    matches!(container.map(|container| &container.state), Some(State::Running { .. }))
}

/// All containers have ended for good: the pod is over by itself.
pub fn is_over(model: &Model, attempts: &BTreeMap<String, Vec<Container>>) -> bool {
    let gone = |unit: &Unit| {
        let code = match newest(attempts, unit.name()) {
            Some(container) => exit_code(Some(container)),
            // Removed, but the API server remembers how it ended.
            None => model
                .old_status(unit.name())
                .and_then(|old| old.state.as_ref()?.terminated.as_ref())
                .map(|terminated| terminated.exit_code),
        };
        code.is_some_and(|code| !model.restarts(unit, code))
    };
    let failed_init = model.of(Kind::Init).any(|unit| {
        let code = exit_code(newest(attempts, unit.name()));
        code.is_some_and(|code| code != 0 && !model.restarts(unit, code))
    });
    failed_init || model.of(Kind::Regular).all(gone)
}

/// Whether init containers are behind us: a regular container has been made once.
fn initialized(view: &View<'_>) -> bool {
    view.model.of(Kind::Regular).any(|unit| {
        view.attempts.contains_key(unit.name())
            || view.model.old_status(unit.name()).is_some_and(|old| old.container_id.is_some())
    })
}

/// The next steps of a pod.
pub fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if view.busy.contains("") {
        return plan;
    }
    if view.end.is_some() || is_over(view.model, view.attempts) || view.model.is_terminal() {
        end(view, &mut plan);
        return plan;
    }
    if view.sandbox == Sandbox::Found {
        match view.held.get("") {
            Some(until) if *until > view.now => plan.wake_at(*until),
            _ => plan.steps.push(Step::Setup { attempt: 0 }),
        }
        return plan;
    }
    if let Sandbox::None { next } = view.sandbox {
        // Containers of a dead sandbox lost their network: they go first.
        let before = plan.steps.len();
        for unit in &view.model.units {
            kill(view, unit, "Pod sandbox changed, it will be killed and re-created.", &mut plan);
        }
        let quiet = plan.steps.len() == before && view.busy.is_empty();
        match view.held.get("") {
            Some(until) if *until > view.now => plan.wake_at(*until),
            _ if quiet => plan.steps.push(Step::Setup { attempt: next }),
            _ => {}
        }
        return plan;
    }
    if init(view, &mut plan) {
        for unit in view.model.of(Kind::Regular).chain(view.model.of(Kind::Ephemeral)) {
            advance(view, unit, &mut plan);
        }
    }
    plan
}

/// Ends what runs: containers first, then sidecars in reverse order, then the rest.
fn end(view: &View<'_>, plan: &mut Plan) {
    let running = |unit: &&Unit| runs(newest(view.attempts, unit.name()));
    let (sidecars, others): (Vec<&Unit>, Vec<&Unit>) =
        view.model.units.iter().filter(running).partition(|unit| unit.kind == Kind::Sidecar);
    if !others.is_empty() {
        others.iter().for_each(|unit| kill(view, unit, "", plan));
        return;
    }
    if let Some(last) = sidecars.last() {
        kill(view, last, "", plan);
        return;
    }
    if !view.busy.is_empty() {
        return;
    }
    plan.steps.push(if view.torn_down { Step::Finished } else { Step::TearDown });
}

fn kill(view: &View<'_>, unit: &Unit, message: &str, plan: &mut Plan) {
    let Some(container) = newest(view.attempts, unit.name()) else { return };
    if !runs(Some(container)) || view.busy.contains(unit.name()) {
        return;
    }
    let message = match message {
        "" => format!("Stopping container {}", unit.name()),
        other => other.to_owned(),
    };
    let (name, id) = (unit.name().to_owned(), container.id.clone());
    plan.steps.push(Step::Kill { name, id, message, because: None });
}

/// Goes on with init containers and sidecars; true when the containers may run.
fn init(view: &View<'_>, plan: &mut Plan) -> bool {
    let done = initialized(view);
    for unit in
        view.model.units.iter().filter(|unit| matches!(unit.kind, Kind::Init | Kind::Sidecar))
    {
        let container = newest(view.attempts, unit.name());
        if unit.kind == Kind::Init {
            if done || exit_code(container) == Some(0) {
                continue;
            }
            advance(view, unit, plan);
            return false;
        }
        advance(view, unit, plan);
        let health = container.and_then(|container| view.health.get(&container.id));
        let started = runs(container) && health.is_some_and(|health| health.started);
        if !started && !done {
            return false;
        }
    }
    true
}

/// What one container needs.
fn advance(view: &View<'_>, unit: &Unit, plan: &mut Plan) {
    let name = unit.name();
    if view.busy.contains(name) {
        return;
    }
    if let Some(until) = view.held.get(name).filter(|until| **until > view.now) {
        plan.wake_at(*until);
        return;
    }
    let start = |restarts| Step::Start {
        name: name.to_owned(),
        attempt: next_attempt(view, name),
        restarts,
    };
    match newest(view.attempts, name) {
        None => plan.steps.push(start(None)),
        Some(container) => match &container.state {
            // Left by a process that was killed between two requests.
            State::Created => plan.steps.push(start(None)),
            State::Running { .. } => {
                if let Some((message, because)) = unfit(view, unit, container) {
                    let (name, id) = (name.to_owned(), container.id.clone());
                    plan.steps.push(Step::Kill { name, id, message, because });
                }
            }
            State::Exited { code, finished_at, .. } => {
                if !view.model.restarts(unit, *code) {
                    return;
                }
                match back_off(view.restarts.get(name).copied(), *finished_at, view.now) {
                    Ok(restarts) => plan.steps.push(start(Some(restarts))),
                    Err((delay, until)) => {
                        plan.steps.push(Step::BackOff { name: name.to_owned(), delay, until });
                        plan.wake_at(until);
                    }
                }
            }
        },
    }
}

/// Why a running container has to be replaced.
fn unfit(view: &View<'_>, unit: &Unit, container: &Container) -> Option<(String, Option<Failed>)> {
    let name = unit.name();
    let restarted = |text: String| match view.model.restarts(unit, 137) {
        true => format!("{text}, will be restarted"),
        false => text,
    };
    if unit.kind == Kind::Ephemeral {
        return None;
    }
    if container.labels.get(super::labels::HASH).is_some_and(|hash| *hash != unit.hash()) {
        return Some((format!("Container {name} definition changed, will be restarted"), None));
    }
    let failed = view.health.get(&container.id)?.failed?;
    let probe = match failed {
        Failed::Liveness => "liveness",
        Failed::Startup => "startup",
    };
    Some((restarted(format!("Container {name} failed {probe} probe")), Some(failed)))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
