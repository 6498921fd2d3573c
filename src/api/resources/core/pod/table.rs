//! The Pod's table: what STATUS and RESTARTS say is worked out from many fields.
//!
//! Why in upstream's order of steps: later ones overrule earlier ones, and scripts match the words.

use jiff::Timestamp;

use super::super::super::columns::{AGE, col, condition, list, number, or, wide};
use crate::api::kind::{Column, age, human_duration};
use crate::object::{Value, meta};

/// After Name.
pub(super) const COLUMNS: &[Column] = &[
    col("Ready"),
    col("Status"),
    col("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

/// The cells of those columns.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = list(pod, &["status", "podIPs"]).first().map_or("", |ip| meta::text(ip, &["ip"]));
    vec![
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.as_str().into(),
        summary.restarts(now).into(),
        age(pod, now).into(),
        or(ip, "<none>").into(),
        or(meta::text(pod, &["spec", "nodeName"]), "<none>").into(),
        or(meta::text(pod, &["status", "nominatedNodeName"]), "<none>").into(),
        gates(pod).into(),
    ]
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, &["restartCount"]);
        let ended = meta::text(status, &["lastState", "terminated", "finishedAt"]);
        self.last = self.last.max(crate::object::time::parse(ended));
    }
}

struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = meta::text(pod, &["status", "phase"]);
        let mut summary = Self {
            ready: 0,
            containers: list(pod, &["spec", "containers"]).len(),
            reason: or(meta::text(pod, &["status", "reason"]), phase).to_owned(),
            restarts: Restarts::default(),
        };
        let gated = list(pod, &["status", "conditions"]).iter().any(|condition| {
            meta::text(condition, &["type"]) == "PodScheduled"
                && meta::text(condition, &["reason"]) == "SchedulingGated"
        });
        if gated {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let mut sidecars = Restarts::default();
        let initializing = summary.init(pod, &mut sidecars);
        if !initializing || condition(pod, "Initialized") == "True" {
            summary.restarts = sidecars;
            summary.regular(pod);
        }
        if meta::is_deleting(pod) {
            if meta::text(pod, &["status", "reason"]) == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    /// Goes through the init containers' statuses up to the first that has not ended well; says
    /// whether there is one.
    fn init(&mut self, pod: &Value, sidecars: &mut Restarts) -> bool {
        let specs = list(pod, &["spec", "initContainers"]);
        let restarts = |spec: &Value| meta::text(spec, &["restartPolicy"]) == "Always";
        self.containers += specs.iter().filter(|spec| restarts(spec)).count();
        let statuses = list(pod, &["status", "initContainerStatuses"]);
        for (at, status) in statuses.iter().enumerate() {
            self.restarts.add(status);
            let name = meta::text(status, &["name"]);
            let spec = specs.iter().find(|spec| meta::text(spec, &["name"]) == name);
            let sidecar = spec.is_some_and(restarts);
            if sidecar {
                sidecars.add(status);
            }
            let ended = meta::at(status, &["state", "terminated"]);
            if ended.is_some_and(|ended| number(ended, &["exitCode"]) == 0) {
                continue;
            }
            if sidecar && is(status, "started") {
                self.ready += usize::from(is(status, "ready"));
                continue;
            }
            let waiting = meta::text(status, &["state", "waiting", "reason"]);
            self.reason = match ended {
                Some(ended) => format!("Init:{}", ending(ended)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{at}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn regular(&mut self, pod: &Value) {
        let (mut running, mut error) = (false, None);
        for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(status);
            let waiting = meta::text(status, &["state", "waiting", "reason"]);
            let ended = meta::at(status, &["state", "terminated"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(ended) = ended {
                self.reason = ending(ended);
                if number(ended, &["exitCode"]) != 0 {
                    error = Some(self.reason.clone());
                }
            } else if is(status, "ready") && meta::at(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && condition(pod, "Ready") == "True" {
                "Running".clone_into(&mut self.reason);
            } else if let Some(error) = error {
                self.reason = error;
            } else if running {
                "NotReady".clone_into(&mut self.reason);
            }
        }
    }

    fn restarts(&self, now: Timestamp) -> String {
        let count = self.restarts.count;
        match self.restarts.last.filter(|_| count != 0) {
            Some(last) => {
                let since = human_duration(now.as_second() - last.as_second());
                format!("{count} ({since} ago)")
            }
            None => count.to_string(),
        }
    }
}

fn is(status: &Value, member: &str) -> bool {
    status.get(member) == Some(&Value::Bool(true))
}

/// Why a container ended: its reason, signal or exit code.
fn ending(ended: &Value) -> String {
    let (reason, signal) = (meta::text(ended, &["reason"]), number(ended, &["signal"]));
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", number(ended, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open =
        gates.iter().filter(|gate| condition(pod, meta::text(gate, &["conditionType"])) == "True");
    format!("{}/{}", open.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(pod: Value) -> [String; 3] {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let cells = cells(&pod, now);
        [0, 1, 2].map(|at| cells[at].as_str().unwrap().to_owned())
    }

    fn pod(statuses: Value, more: Value) -> Value {
        let mut status = json!({"phase": "Running", "containerStatuses": statuses});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}],
                        "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status})
    }

    #[test]
    fn the_states_read_as_in_kubectl() {
        let up = json!({"name": "a", "ready": true, "state": {"running": {}}});
        let done = json!({"name": "b", "state": {"terminated": {"reason": "Completed"}}});
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(row(pod(json!([up, done]), ready)), ["1/2", "Running", "0"]);
        assert_eq!(row(pod(json!([up, done]), json!({}))), ["1/2", "NotReady", "0"]);
        assert_eq!(row(pod(json!([done]), json!({}))), ["0/2", "Completed", "0"]);
        let crash = json!({"name": "a", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}});
        assert_eq!(row(pod(json!([crash]), json!({}))), ["0/2", "CrashLoopBackOff", "3 (5m ago)"]);
        let init = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "j", "state": {"running": {}}}]});
        assert_eq!(row(pod(json!([]), init)), ["0/2", "Init:1/2", "0"]);
        let mut deleting = pod(json!([up]), json!({}));
        deleting["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(row(deleting), ["1/2", "Terminating", "0"]);
    }
}
