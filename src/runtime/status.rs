//! The pod status that the node reports: a pure function of what is known about a pod.
//!
//! Why pure and whole: the status is computed anew from facts each time and only the difference is
//! written, so a lost write, a restart or a race heals with the next one. The rules (phase,
//! conditions, waiting and last states) are upstream's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::engine::{Container, State};
use super::labels;
use super::plan::{Health, attempt_of, is_over};
use super::pods::{Kind, Model, Unit};

/// Conditions that the node owns; others are left alone.
const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// As in "CrashLoopBackOff".
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Everything that a status is made of.
pub struct Facts<'a> {
    /// The pod.
    pub model: &'a Model,
    /// The containers of each name, oldest first.
    pub attempts: &'a BTreeMap<String, Vec<Container>>,
    /// What probes say, by container id.
    pub health: &'a BTreeMap<String, Health>,
    /// Why containers wait, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Termination messages, by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// The sandbox stands and has its network.
    pub sandbox: bool,
    /// The pod's own addresses.
    pub addresses: &'a [IpAddr],
    /// The node's address.
    pub host: IpAddr,
    /// The pod as a whole failed: reason and message.
    pub failure: Option<&'a (String, String)>,
    /// All containers have ended and none will start again, whatever the policy says.
    pub ended: bool,
    /// When the node first saw the pod.
    pub first_seen: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// The status of the pod.
pub fn status(facts: &Facts<'_>) -> core::PodStatus {
    let pod = &facts.model.pod;
    let old = pod.status.clone().unwrap_or_default();
    let mut status = core::PodStatus {
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(facts.first_seen))),
        host_ip: Some(facts.host.to_string()),
        host_ips: Some(vec![core::HostIP { ip: facts.host.to_string() }]),
        ..old.clone()
    };
    let of = |kinds: &[Kind]| -> Option<Vec<core::ContainerStatus>> {
        let units = facts.model.units.iter().filter(|unit| kinds.contains(&unit.kind));
        let list: Vec<_> = units.map(|unit| container(facts, unit)).collect();
        (!list.is_empty()).then_some(list)
    };
    status.init_container_statuses = of(&[Kind::Init, Kind::Sidecar]);
    status.container_statuses = of(&[Kind::Regular]);
    status.ephemeral_container_statuses = of(&[Kind::Ephemeral]);
    if let Some(list) = &mut status.container_statuses {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let was_terminal = facts.model.is_terminal();
    let phase = match facts.failure {
        _ if was_terminal => old.phase.clone().unwrap_or_default(),
        Some(_) => "Failed".to_owned(),
        None => phase(facts, &status).to_owned(),
    };
    match facts.failure {
        Some((reason, message)) if !was_terminal => {
            status.reason = Some(reason.clone());
            status.message = Some(message.clone()).filter(|message| !message.is_empty());
        }
        _ if old.phase.as_deref() == Some(&phase) => {}
        _ => (status.reason, status.message) = (None, None),
    }
    addresses(facts, &mut status);
    let conditions = conditions(facts, &status, &phase, &old);
    status.conditions = Some(conditions);
    status.phase = Some(phase);
    status
}

fn addresses(facts: &Facts<'_>, status: &mut core::PodStatus) {
    let own: Vec<String> = match facts.model.host_network() {
        true => vec![facts.host.to_string()],
        false => facts.addresses.iter().map(ToString::to_string).collect(),
    };
    // A pod keeps showing its addresses when its sandbox is gone.
    if let Some(first) = own.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(own.into_iter().map(|ip| core::PodIP { ip }).collect());
    }
}

fn terminated(facts: &Facts<'_>, container: &Container) -> Option<core::ContainerStateTerminated> {
    let State::Exited { code, started_at, finished_at, oom, error } = &container.state else {
        return None;
    };
    let reason = match code {
        _ if *oom => "OOMKilled",
        _ if started_at.is_none() => "StartError",
        0 => "Completed",
        _ => "Error",
    };
    let message = facts.messages.get(&container.id).cloned().filter(|text| !text.is_empty());
    let message = message.or_else(|| Some(error.clone()).filter(|text| !text.is_empty()));
    Some(core::ContainerStateTerminated {
        container_id: Some(format!("docker://{}", container.id)),
        exit_code: *code,
        finished_at: Some(Time(*finished_at)),
        message,
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: started_at.map(Time),
    })
}

fn state(facts: &Facts<'_>, container: &Container) -> core::ContainerState {
    let mut state = core::ContainerState::default();
    match &container.state {
        State::Created => state.waiting = Some(core::ContainerStateWaiting::default()),
        State::Running { started_at, .. } => {
            let started_at = Some(Time(*started_at));
            state.running = Some(core::ContainerStateRunning { started_at });
        }
        State::Exited { .. } => state.terminated = terminated(facts, container),
    }
    state
}

/// The state of a container that the engine does not have.
fn absent(facts: &Facts<'_>, unit: &Unit, status: &mut core::ContainerStatus) {
    let initializing =
        facts.model.units.iter().any(|unit| matches!(unit.kind, Kind::Init | Kind::Sidecar));
    let reason = if initializing && unit.kind != Kind::Ephemeral {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let waiting = core::ContainerStateWaiting { message: None, reason: Some(reason.to_owned()) };
    let waits = core::ContainerState { waiting: Some(waiting), ..core::ContainerState::default() };
    let Some(old) = facts.model.old_status(unit.name()) else {
        status.state = Some(waits);
        return;
    };
    let before = old.state.clone().unwrap_or_default();
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    if before.terminated.is_some() {
        *status = old.clone();
        return;
    }
    status.state = Some(waits);
    if before.running.is_some() {
        let message = "The container could not be located when the pod was deleted.  The container \
                       used to be Running";
        let lost = core::ContainerStateTerminated {
            exit_code: 137,
            message: Some(message.to_owned()),
            reason: Some("ContainerStatusUnknown".to_owned()),
            ..core::ContainerStateTerminated::default()
        };
        let terminated = Some(lost);
        if facts.ended {
            status.container_id = old.container_id.clone();
            status.state =
                Some(core::ContainerState { terminated, ..core::ContainerState::default() });
        } else {
            status.last_state =
                Some(core::ContainerState { terminated, ..core::ContainerState::default() });
        }
    }
}

/// One container's status.
fn container(facts: &Facts<'_>, unit: &Unit) -> core::ContainerStatus {
    let image = unit.spec.image.clone().unwrap_or_default();
    let mut status =
        core::ContainerStatus { name: unit.spec.name.clone(), image, ..Default::default() };
    status.volume_mounts = volume_mounts(unit);
    let list = facts.attempts.get(unit.name()).map(Vec::as_slice).unwrap_or_default();
    match list.split_last() {
        None => absent(facts, unit, &mut status),
        Some((newest, before)) => {
            status.restart_count = attempt_of(newest) as i32;
            status.container_id = Some(format!("docker://{}", newest.id));
            let reference = newest.labels.get(labels::IMAGE).unwrap_or(&newest.image_id);
            status.image_id = reference.clone();
            status.state = Some(state(facts, newest));
            status.last_state = match before.last() {
                Some(previous) => Some(state(facts, previous)),
                None => facts
                    .model
                    .old_status(unit.name())
                    .filter(|old| old.restart_count == status.restart_count)
                    .and_then(|old| old.last_state.clone()),
            };
            status.resources = unit.spec.resources.clone();
            status.allocated_resources =
                unit.spec.resources.as_ref().and_then(|resources| resources.requests.clone());
        }
    }
    if let Some(waiting) = facts.waiting.get(unit.name()).filter(|_| !facts.ended) {
        let now = status.state.take().unwrap_or_default();
        if now.terminated.is_some() {
            status.last_state = Some(now);
        }
        let message = Some(waiting.message.clone()).filter(|text| !text.is_empty());
        let waiting = core::ContainerStateWaiting { message, reason: Some(waiting.reason.clone()) };
        status.state = Some(core::ContainerState { waiting: Some(waiting), ..Default::default() });
    }
    readiness(facts, unit, &mut status);
    status.last_state = Some(status.last_state.take().unwrap_or_default());
    status
}

fn readiness(facts: &Facts<'_>, unit: &Unit, status: &mut core::ContainerStatus) {
    let state = status.state.as_ref();
    let runs = state.is_some_and(|state| state.running.is_some());
    let id = status.container_id.as_deref().and_then(|id| id.strip_prefix("docker://"));
    let health = id.and_then(|id| facts.health.get(id)).copied().unwrap_or_default();
    let started = runs && health.started;
    status.started = Some(started);
    status.ready = match unit.kind {
        Kind::Init => {
            let ended = state.and_then(|state| state.terminated.as_ref());
            ended.is_some_and(|ended| ended.exit_code == 0)
        }
        Kind::Sidecar | Kind::Regular => started && health.ready,
        Kind::Ephemeral => false,
    };
    if unit.kind == Kind::Ephemeral {
        status.started = None;
    }
}

fn volume_mounts(unit: &Unit) -> Option<Vec<core::VolumeMountStatus>> {
    let mounts = unit.spec.volume_mounts.as_ref()?;
    let status = |mount: &core::VolumeMount| core::VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount
            .read_only
            .filter(|read_only| *read_only)
            .map(|_| "Disabled".to_owned()),
        volume_status: None,
    };
    Some(mounts.iter().map(status).collect())
}

/// Counts for the phase.
#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stays_stopped: usize,
    succeeded: usize,
}

impl Counts {
    fn init(&mut self, facts: &Facts<'_>, unit: &Unit, status: &core::ContainerStatus) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let ended = state.terminated.as_ref().or(state.waiting.as_ref().and(last));
        match ended {
            None => self.pending_init += 1,
            Some(ended) if ended.exit_code == 0 => {}
            Some(ended) if facts.model.restarts(unit, ended.exit_code) => {
                // It will run again; upstream counts it as neither pending nor failed for good.
                self.waiting += 1;
            }
            Some(_) => self.failed_init += 1,
        }
    }

    fn sidecar(&mut self, status: &core::ContainerStatus) {
        let state = status.state.clone().unwrap_or_default();
        let ended_before =
            status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
        if state.running.is_some() {
            self.running += 1;
            self.pending_sidecars += usize::from(status.started != Some(true));
        } else if state.waiting.is_some() && !ended_before {
            self.pending_sidecars += 1;
            self.waiting += 1;
        }
    }

    fn regular(&mut self, facts: &Facts<'_>, unit: &Unit, status: &core::ContainerStatus) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|state| state.terminated.clone());
        if state.running.is_some() {
            self.running += 1;
            return;
        }
        let waits = state.waiting.is_some();
        let Some(ended) = state.terminated.or(last.filter(|_| waits)) else {
            self.waiting += 1;
            return;
        };
        self.stopped += 1;
        self.succeeded += usize::from(!waits && ended.exit_code == 0);
        self.stays_stopped += usize::from(!facts.model.restarts(unit, ended.exit_code));
    }
}

fn phase(facts: &Facts<'_>, status: &core::PodStatus) -> &'static str {
    let mut counts = Counts::default();
    let all = [&status.init_container_statuses, &status.container_statuses];
    for found in all.into_iter().flatten().flatten() {
        let Some(unit) = facts.model.unit(&found.name) else { continue };
        match unit.kind {
            Kind::Init => counts.init(facts, unit, found),
            Kind::Sidecar => counts.sidecar(found),
            Kind::Regular => counts.regular(facts, unit, found),
            Kind::Ephemeral => {}
        }
    }
    let initialized = has_started_regular(status);
    if counts.failed_init > 0 {
        return "Failed";
    }
    if counts.pending_init > 0
        || (counts.pending_sidecars > 0 && !initialized)
        || counts.waiting > 0
    {
        return "Pending";
    }
    if counts.running > 0 {
        return "Running";
    }
    if counts.stopped == 0 {
        return "Pending";
    }
    let over = facts.ended || counts.stopped == counts.stays_stopped;
    match (over, counts.stopped == counts.succeeded) {
        (false, _) => "Running",
        (true, true) => "Succeeded",
        (true, false) => "Failed",
    }
}

fn has_started_regular(status: &core::PodStatus) -> bool {
    status.container_statuses.iter().flatten().any(|status| {
        let state = status.state.as_ref();
        let last = status.last_state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || last.is_some_and(|state| state.terminated.is_some())
    })
}

/// A condition before it has its times.
struct Draft {
    name: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Draft {
    fn new(name: &'static str, holds: bool, reason: &'static str, message: String) -> Self {
        Self { name, holds, reason, message }
    }
}

fn conditions(
    facts: &Facts<'_>,
    status: &core::PodStatus,
    phase: &str,
    old: &core::PodStatus,
) -> Vec<core::PodCondition> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let foreign = before.iter().filter(|known| !OWN_CONDITIONS.contains(&known.type_.as_str()));
    let mut all: Vec<core::PodCondition> = foreign.cloned().collect();
    let (ready, reason, message) = containers_ready(facts, status, phase);
    let gates = if ready { closed_gates(facts, &all) } else { Vec::new() };
    let pod_ready = match gates.is_empty() {
        true => Draft::new("Ready", ready, reason, message.clone()),
        false => Draft::new("Ready", false, "ReadinessGatesNotReady", gates.join(", ")),
    };
    let drafts = [
        Draft::new("PodReadyToStartContainers", facts.sandbox, "", String::new()),
        initialized(facts, status, phase),
        pod_ready,
        Draft::new("ContainersReady", ready, reason, message),
        Draft::new("PodScheduled", true, "", String::new()),
    ];
    for draft in drafts {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let value = if draft.holds { "True" } else { "False" };
        let known = before.iter().find(|known| known.type_ == draft.name);
        let since = known.filter(|known| known.status == value);
        all.push(core::PodCondition {
            last_probe_time: None,
            last_transition_time: since
                .and_then(|known| known.last_transition_time.clone())
                .or(Some(Time(facts.now))),
            message: text(&draft.message),
            observed_generation: facts.model.pod.metadata.generation,
            reason: text(draft.reason),
            status: value.to_owned(),
            type_: draft.name.to_owned(),
        });
    }
    all
}

fn closed_gates(facts: &Facts<'_>, conditions: &[core::PodCondition]) -> Vec<String> {
    let gates = facts.model.spec().readiness_gates.as_deref().unwrap_or_default();
    let closed = |gate: &core::PodReadinessGate| {
        let name = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *name) {
            None => Some(format!(
                "corresponding condition of pod readiness gate {name:?} does not exist."
            )),
            Some(found) if found.status == "True" => None,
            Some(found) => Some(format!(
                "the status of pod readiness gate {name:?} is not \"True\", but {}",
                found.status
            )),
        }
    };
    gates.iter().filter_map(closed).collect()
}

/// Go's way to print a list of names.
fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn containers_ready(
    facts: &Facts<'_>,
    status: &core::PodStatus,
    phase: &str,
) -> (bool, &'static str, String) {
    match phase {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let statuses: Vec<_> = lists.into_iter().flatten().flatten().collect();
    let ready = |name: &str| statuses.iter().any(|status| status.name == name && status.ready);
    let counted =
        facts.model.units.iter().filter(|unit| matches!(unit.kind, Kind::Sidecar | Kind::Regular));
    let unready: Vec<&str> = counted.map(Unit::name).filter(|name| !ready(name)).collect();
    if unready.is_empty() {
        return (true, "", String::new());
    }
    let message = format!("containers with unready status: {}", go_list(&unready));
    (false, "ContainersNotReady", message)
}

fn initialized(facts: &Facts<'_>, status: &core::PodStatus, phase: &str) -> Draft {
    let name = "Initialized";
    if phase == "Succeeded" {
        return Draft::new(name, true, "PodCompleted", String::new());
    }
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let complete = |unit: &&Unit| {
        let found = statuses.iter().find(|status| status.name == unit.name());
        found.is_some_and(|status| match unit.kind {
            Kind::Sidecar => status.started == Some(true),
            _ => status.ready,
        })
    };
    let units =
        facts.model.units.iter().filter(|unit| matches!(unit.kind, Kind::Init | Kind::Sidecar));
    let missing: Vec<&str> = units.filter(|unit| !complete(unit)).map(Unit::name).collect();
    if missing.is_empty() || has_started_regular(status) {
        return Draft::new(name, true, "", String::new());
    }
    let message = format!("containers with incomplete status: {}", go_list(&missing));
    Draft::new(name, false, "ContainersNotInitialized", message)
}

/// Whether all containers of the pod have ended and none will start again.
pub fn has_ended(model: &Model, attempts: &BTreeMap<String, Vec<Container>>) -> bool {
    let any_runs = attempts
        .values()
        .filter_map(|list| list.last())
        .any(|container| matches!(container.state, State::Running { .. }));
    is_over(model, attempts) && !any_runs
}

/// A condition as a patch of itself: what it no longer says is taken away.
fn changed_condition(before: &[Value], condition: &Value) -> Value {
    let mut patch = condition.clone();
    let old = before.iter().find(|old| old["type"] == condition["type"]);
    let fields = old.and_then(Value::as_object).into_iter().flatten().map(|(field, _)| field);
    for field in fields.filter(|field| condition.get(field).is_none()) {
        patch[field] = Value::Null;
    }
    patch
}

/// The strategic merge patch from `old` to `new`; `None` when nothing differs.
pub fn patch(uid: &str, old: &core::PodStatus, new: &core::PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
        (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return None;
    };
    let mut changes = serde_json::Map::new();
    for (field, value) in &new {
        let before = old.get(field);
        if before == Some(value) {
            continue;
        }
        let change = match (field.as_str(), value, before) {
            // Lists that merge by key: only what changed, or all of it anew.
            ("conditions", Value::Array(list), Some(Value::Array(before))) => {
                let news: Vec<Value> = list
                    .iter()
                    .filter(|one| !before.contains(one))
                    .map(|one| changed_condition(before, one))
                    .collect();
                // In another order it is the same.
                if news.is_empty() {
                    continue;
                }
                Value::Array(news)
            }
            ("podIPs" | "hostIPs", Value::Array(list), Some(_)) => {
                let replace = std::iter::once(json!({"$patch": "replace"}));
                replace.chain(list.iter().cloned()).collect()
            }
            _ => value.clone(),
        };
        changes.insert(field.clone(), change);
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        changes.insert(field.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
