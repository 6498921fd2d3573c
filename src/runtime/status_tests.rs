//! Tests of the status rules.

use super::*;
use crate::runtime::pods::tests::model;
use serde_json::json;

struct Case {
    model: Model,
    attempts: BTreeMap<String, Vec<Container>>,
    health: BTreeMap<String, Health>,
    waiting: BTreeMap<String, Waiting>,
    failure: Option<(String, String)>,
    ended: bool,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Case {
    fn new(spec: Value) -> Self {
        Self {
            model: model(spec),
            attempts: BTreeMap::new(),
            health: BTreeMap::new(),
            waiting: BTreeMap::new(),
            failure: None,
            ended: false,
        }
    }

    fn has(mut self, name: &str, state: State) -> Self {
        let list = self.attempts.entry(name.to_owned()).or_default();
        let id = format!("{name}-{}", list.len());
        if matches!(state, State::Running { .. }) {
            let health = Health { started: true, ready: true, failed: None };
            self.health.insert(id.clone(), health);
        }
        let attempt = [(labels::ATTEMPT.to_owned(), list.len().to_string())].into();
        list.push(Container {
            id,
            labels: attempt,
            image_id: "sha256:1".into(),
            created_at: at(0),
            state,
        });
        self
    }

    fn status(&self) -> core::PodStatus {
        status(&Facts {
            model: &self.model,
            attempts: &self.attempts,
            health: &self.health,
            waiting: &self.waiting,
            messages: &BTreeMap::new(),
            sandbox: true,
            addresses: &["10.42.0.2".parse().unwrap()],
            host: "192.0.2.1".parse().unwrap(),
            failure: self.failure.as_ref(),
            ended: self.ended,
            first_seen: at(10),
            now: at(100),
        })
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }
}

fn running() -> State {
    State::Running { pid: 1, started_at: at(50) }
}

fn exited(code: i32) -> State {
    let (started_at, finished_at) = (Some(at(50)), at(60));
    State::Exited { code, started_at, finished_at, oom: false, error: String::new() }
}

fn holds(status: &core::PodStatus, name: &str) -> (String, String) {
    let list = status.conditions.as_ref().unwrap();
    let found = list.iter().find(|condition| condition.type_ == name).unwrap();
    (found.status.clone(), found.reason.clone().unwrap_or_default())
}

#[test]
fn phases_follow_containers_and_policy() {
    let pod = |policy: &str| {
        let containers = json!([{"name": "a"}, {"name": "b"}]);
        json!({"restartPolicy": policy, "containers": containers})
    };
    assert_eq!(Case::new(pod("Always")).phase(), "Pending");
    assert_eq!(Case::new(pod("Always")).has("a", running()).phase(), "Pending");
    let both = |policy: &str, a: State, b: State| Case::new(pod(policy)).has("a", a).has("b", b);
    assert_eq!(both("Always", running(), running()).phase(), "Running");
    assert_eq!(both("Always", exited(0), exited(0)).phase(), "Running");
    assert_eq!(both("OnFailure", exited(0), exited(1)).phase(), "Running");
    assert_eq!(both("OnFailure", exited(0), exited(0)).phase(), "Succeeded");
    assert_eq!(both("Never", exited(0), running()).phase(), "Running");
    assert_eq!(both("Never", exited(0), exited(1)).phase(), "Failed");
    let mut ending = both("Always", exited(0), exited(143));
    ending.ended = true;
    assert_eq!(ending.phase(), "Failed");
    let init = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}]});
    assert_eq!(Case::new(init.clone()).has("i", exited(2)).phase(), "Failed");
    assert_eq!(Case::new(init).has("i", running()).phase(), "Pending");
}

#[test]
fn conditions_say_what_is_missing() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
        "readinessGates": [{"conditionType": "example.com/lb"}]});
    let status = Case::new(spec.clone()).has("i", running()).status();
    assert_eq!(holds(&status, "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    assert_eq!(holds(&status, "Ready"), ("False".into(), "ContainersNotReady".into()));
    let status = Case::new(spec).has("i", exited(0)).has("a", running()).status();
    assert_eq!(holds(&status, "Initialized").0, "True");
    assert_eq!(holds(&status, "ContainersReady").0, "True");
    assert_eq!(holds(&status, "Ready"), ("False".into(), "ReadinessGatesNotReady".into()));
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.2"));
}

#[test]
fn a_crash_loop_shows_the_wait_and_how_the_last_run_ended() {
    let mut case = Case::new(json!({"containers": [{"name": "a"}]})).has("a", exited(3));
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    case.waiting.insert("a".into(), waiting);
    let status = case.status();
    let one = &status.container_statuses.unwrap()[0];
    let waits = one.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waits.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(one.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn a_patch_holds_only_what_changed() {
    let case = Case::new(json!({"containers": [{"name": "a"}]}));
    let before = case.status();
    assert_eq!(patch("u-1", &before, &before), None);
    let after = case.has("a", running()).status();
    let patch = patch("u-1", &before, &after).unwrap();
    assert_eq!(patch["metadata"]["uid"], "u-1");
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let names: Vec<_> = conditions.iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(names, ["Ready", "ContainersReady"]);
    assert_eq!(conditions[0]["message"], Value::Null);
    assert_eq!(patch["status"].get("podIP"), None);
}
