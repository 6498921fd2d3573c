//! Tests of the plan: a pod is put into a state, and the next steps are read.

use super::*;
use crate::runtime::labels;
use crate::runtime::pods::tests::model;
use serde_json::json;

struct Case {
    model: Model,
    attempts: BTreeMap<String, Vec<Container>>,
    health: BTreeMap<String, Health>,
    busy: BTreeSet<String>,
    restarts: BTreeMap<String, Restarts>,
    end: Option<End>,
    sandbox: Sandbox,
    now: Timestamp,
    torn_down: bool,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Case {
    fn new(spec: serde_json::Value) -> Self {
        Self {
            model: model(spec),
            attempts: BTreeMap::new(),
            health: BTreeMap::new(),
            busy: BTreeSet::new(),
            restarts: BTreeMap::new(),
            end: None,
            sandbox: Sandbox::Ready,
            now: at(1000),
            torn_down: false,
        }
    }

    fn has(mut self, name: &str, state: State) -> Self {
        let unit = self.model.unit(name).unwrap();
        let list = self.attempts.entry(name.to_owned()).or_default();
        let labels = [(labels::ATTEMPT, list.len().to_string()), (labels::HASH, unit.hash())];
        list.push(Container {
            id: format!("{name}-{}", list.len()),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            image_id: String::new(),
            created_at: at(0),
            state,
        });
        self
    }

    fn plan(&self) -> Plan {
        plan(&View {
            model: &self.model,
            sandbox: self.sandbox.clone(),
            attempts: &self.attempts,
            health: &self.health,
            busy: &self.busy,
            restarts: &self.restarts,
            held: &BTreeMap::new(),
            end: self.end.clone(),
            torn_down: self.torn_down,
            now: self.now,
        })
    }

    fn steps(&self) -> Vec<String> {
        let text = |step: &Step| match step {
            Step::Setup { attempt } => format!("setup {attempt}"),
            Step::Start { name, attempt, .. } => format!("start {name} {attempt}"),
            Step::Kill { id, message, .. } => format!("kill {id}: {message}"),
            Step::BackOff { name, delay, .. } => format!("wait {name} {delay:?}"),
            other => format!("{other:?}"),
        };
        self.plan().steps.iter().map(text).collect()
    }
}

fn running() -> State {
    State::Running { pid: 1, started_at: at(900) }
}

fn exited(code: i32, finished: i64) -> State {
    State::Exited {
        code,
        started_at: Some(at(finished - 1)),
        finished_at: at(finished),
        oom: false,
        error: String::new(),
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_then_all_containers_at_once() {
    let mut case = Case::new(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    case.sandbox = Sandbox::None { next: 0 };
    assert_eq!(case.steps(), ["setup 0"]);
    case.sandbox = Sandbox::Ready;
    assert_eq!(case.steps(), ["start a 0", "start b 0"]);
    case.busy.insert("a".to_owned());
    assert_eq!(case.steps(), ["start b 0"]);
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_hold_up_until_started() {
    let spec = json!({
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "c"}],
    });
    let case = Case::new(spec.clone());
    assert_eq!(case.steps(), ["start i 0"]);
    let case = Case::new(spec.clone()).has("i", running());
    assert!(case.steps().is_empty());
    let mut case = Case::new(spec.clone()).has("i", exited(0, 990));
    assert_eq!(case.steps(), ["start s 0"]);
    case = case.has("s", running());
    assert!(case.steps().is_empty());
    case.health.insert("s-0".to_owned(), Health { started: true, ..Health::default() });
    assert_eq!(case.steps(), ["start c 0"]);
    // Once containers run, a sidecar that ended starts again beside them.
    let case = Case::new(spec).has("i", exited(0, 900)).has("s", exited(1, 950));
    assert_eq!(case.has("c", running()).steps(), ["start s 1"]);
}

#[test]
fn a_container_that_keeps_ending_waits_longer_each_time() {
    let mut case = Case::new(json!({"containers": [{"name": "a"}]})).has("a", exited(1, 999));
    let Step::Start { restarts: Some(first), .. } = case.plan().steps[0].clone() else {
        panic!("the first restart is at once");
    };
    assert_eq!(first.delay, RESTART_DELAY);
    case.restarts.insert("a".to_owned(), first);
    case.now = at(1005);
    assert_eq!(case.steps(), ["wait a 10s"]);
    assert_eq!(case.plan().wake, Some(at(1009)));
    case.now = at(1009);
    let Step::Start { restarts: Some(second), .. } = case.plan().steps[0].clone() else {
        panic!("the wait is over");
    };
    assert_eq!(second.delay, RESTART_DELAY * 2);
    let long = Restarts { delay: RESTART_DELAY_MAX, since: at(1000) };
    assert_eq!(back_off(Some(long), at(1100), at(1500)).unwrap().delay, RESTART_DELAY_MAX);
    assert_eq!(back_off(Some(long), at(9000), at(9000)).unwrap().delay, RESTART_DELAY);
}

#[test]
fn a_dead_sandbox_takes_its_containers_along_before_the_next() {
    let mut case = Case::new(json!({"containers": [{"name": "a"}]})).has("a", running());
    case.sandbox = Sandbox::None { next: 1 };
    let message = "Pod sandbox changed, it will be killed and re-created.";
    assert_eq!(case.steps(), [format!("kill a-0: {message}")]);
    case.attempts.get_mut("a").unwrap()[0].state = exited(137, 1000);
    assert_eq!(case.steps(), ["setup 1"]);
}

#[test]
fn probes_and_a_new_image_end_a_running_container() {
    let mut case = Case::new(json!({"containers": [{"name": "a"}]})).has("a", running());
    let failed = Health { failed: Some(Failed::Liveness), ..Health::default() };
    case.health.insert("a-0".to_owned(), failed);
    let message = "Container a failed liveness probe, will be restarted";
    assert_eq!(case.steps(), [format!("kill a-0: {message}")]);
    case.health.clear();
    case.model = model(json!({"containers": [{"name": "a", "image": "other"}]}));
    let message = "Container a definition changed, will be restarted";
    assert_eq!(case.steps(), [format!("kill a-0: {message}")]);
}

#[test]
fn an_ending_pod_stops_containers_then_sidecars_backwards_then_the_sandbox() {
    let spec = json!({
        "initContainers": [
            {"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "a"}],
    });
    let base = || {
        let mut case = Case::new(spec.clone()).has("s", running()).has("t", running());
        case.end = Some(End::Deleted);
        case
    };
    let case = base().has("a", running());
    assert_eq!(case.steps(), ["kill a-0: Stopping container a"]);
    let mut case = base().has("a", exited(0, 999));
    assert_eq!(case.steps(), ["kill t-0: Stopping container t"]);
    case.attempts.get_mut("t").unwrap()[0].state = exited(0, 999);
    case.attempts.get_mut("s").unwrap()[0].state = exited(0, 999);
    assert_eq!(case.steps(), ["TearDown"]);
    case.torn_down = true;
    assert_eq!(case.steps(), ["Finished"]);
}

#[test]
fn a_pod_whose_containers_are_done_is_taken_down_by_itself() {
    let spec = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]});
    let case = Case::new(spec.clone()).has("a", exited(0, 999));
    assert_eq!(case.steps(), ["TearDown"]);
    assert_eq!(Case::new(spec).has("a", exited(3, 999)).steps(), ["start a 1"]);
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}]});
    assert_eq!(Case::new(spec).has("i", exited(1, 999)).steps(), ["TearDown"]);
}

#[test]
fn what_a_killed_process_left_half_made_is_made_again_under_its_number() {
    let case = Case::new(json!({"containers": [{"name": "a"}]}));
    let case = case.has("a", exited(1, 900)).has("a", State::Created);
    assert_eq!(case.steps(), ["start a 1"]);
}
