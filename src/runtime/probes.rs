//! Startup, readiness and liveness probes: how one is run, and how results become a verdict.
//!
//! Why one task a probe: each has its own period, and a slow one must hold up nothing. A task only
//! reports when the verdict changes; what follows from it is the plan's business.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1 as core;

use super::pods::{Model, Unit};
use super::{Host, SharedHost, env, hooks, httpget};
use crate::reconcile::EventType;

/// How often a probe that can't be run at all is tried at once (upstream's).
const ATTEMPTS: usize = 3;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Has it come up?
    Startup,
    /// May it get requests?
    Readiness,
    /// Does it still work?
    Liveness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The probe of this kind that a container has.
    pub fn of(self, unit: &Unit) -> Option<&core::Probe> {
        match self {
            Self::Startup => unit.spec.startup_probe.as_ref(),
            Self::Readiness => unit.spec.readiness_probe.as_ref(),
            Self::Liveness => unit.spec.liveness_probe.as_ref(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What one run of a probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Fine.
    Success,
    /// Not fine, with what it said.
    Failure(String),
    /// It could not be run; counts for nothing.
    Error(String),
}

/// Counts outcomes against the thresholds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    last: Option<bool>,
    run: i32,
    told: Option<bool>,
}

impl Verdict {
    /// Takes an outcome; a changed verdict is returned once.
    pub fn take(&mut self, good: bool, probe: &core::Probe) -> Option<bool> {
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let wanted = match good {
            true => probe.success_threshold.unwrap_or(1),
            false => probe.failure_threshold.unwrap_or(3),
        };
        if self.run < wanted || self.told == Some(good) {
            return None;
        }
        self.told = Some(good);
        Some(good)
    }
}

/// The container that a probe looks at.
#[derive(Clone)]
pub struct Subject {
    /// The pod.
    pub model: std::sync::Arc<Model>,
    /// The container.
    pub unit: Unit,
    /// Its id.
    pub id: String,
    /// The pod's address.
    pub address: Option<IpAddr>,
    /// How long it has run already.
    pub age: Duration,
}

/// Probes until cancelled from outside; each change of the verdict goes to `tell`, which answers
/// whether to go on.
pub async fn watch(
    host: SharedHost,
    kind: ProbeKind,
    subject: Subject,
    tell: impl Fn(bool) -> bool + Send + Sync,
) {
    let Some(probe) = kind.of(&subject.unit).cloned() else { return };
    let seconds = |number: Option<i32>, usual: u64| {
        let given = number.and_then(|number| u64::try_from(number).ok());
        Duration::from_secs(given.filter(|number| *number > 0).unwrap_or(usual))
    };
    let delay = probe.initial_delay_seconds.and_then(|delay| u64::try_from(delay).ok());
    let delay = Duration::from_secs(delay.unwrap_or(0)).saturating_sub(subject.age);
    tokio::time::sleep(delay).await;
    let mut period = tokio::time::interval(seconds(probe.period_seconds, 10));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut verdict = Verdict::default();
    loop {
        period.tick().await;
        let mut outcome = once(&host, &probe, &subject, timeout).await;
        for _ in 1..ATTEMPTS {
            if !matches!(outcome, Outcome::Error(_)) {
                break;
            }
            outcome = once(&host, &probe, &subject, timeout).await;
        }
        let title = kind.title();
        let message = match &outcome {
            Outcome::Success => None,
            Outcome::Failure(text) => Some(format!("{title} probe failed: {text}")),
            Outcome::Error(text) => {
                Some(format!("{title} probe errored and resulted in unknown state: {text}"))
            }
        };
        if let Some(message) = message {
            let (model, unit) = (&subject.model, &subject.unit);
            host.unit_event(model, unit, EventType::Warning, "Unhealthy", message);
        }
        let good = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Error(_) => continue,
        };
        if let Some(good) = verdict.take(good, &probe)
            && !tell(good)
        {
            return;
        }
    }
}

/// Runs a probe once.
pub async fn once(
    host: &Host,
    probe: &core::Probe,
    subject: &Subject,
    timeout: Duration,
) -> Outcome {
    if let Some(exec) = &probe.exec {
        return exec_probe(host, exec, subject, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let request = hooks::request(action, &subject.unit, subject.address, "kube-probe", timeout);
        let get = match request {
            Ok(get) => get,
            Err(error) => return Outcome::Error(error),
        };
        return match get.send().await {
            Ok(answer) if (200..400).contains(&answer.code) => Outcome::Success,
            Ok(answer) => {
                Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.code))
            }
            Err(error) => Outcome::Failure(error),
        };
    }
    let address = subject.address.map(|address| address.to_string()).unwrap_or_default();
    if let Some(action) = &probe.tcp_socket {
        let own = action.host.clone().filter(|name| !name.is_empty());
        let target = own.unwrap_or(address);
        let port = match hooks::port_of(&action.port, &subject.unit) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        return match tokio::time::timeout(timeout, httpget::dial(&target, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!("dial tcp {target}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).unwrap_or(0);
        let service = action.service.as_deref().unwrap_or("");
        return match tokio::time::timeout(timeout, grpc(&address, port, service)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text =
                    format!("timeout: failed to connect service \"{address}:{port}\" within");
                Outcome::Failure(format!("{text} {}s", timeout.as_secs()))
            }
        };
    }
    Outcome::Error(format!("missing probe handler for {}", subject.unit.name()))
}

async fn exec_probe(
    host: &Host,
    exec: &core::ExecAction,
    subject: &Subject,
    timeout: Duration,
) -> Outcome {
    // Only what the spec says literally can be referred to, as upstream.
    let literal = |name: &str| {
        let mut known = subject.unit.spec.env.iter().flatten();
        known
            .find(|one| one.name == name && one.value_from.is_none())
            .map(|one| one.value.clone().unwrap_or_default())
    };
    let command = exec.command.iter().flatten();
    let command: Vec<String> = command.map(|text| env::expand(text, literal)).collect();
    let run = hooks::run_command(host, &subject.id, &command);
    match tokio::time::timeout(timeout, run).await {
        Err(_) => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Ok(Err(error)) => Outcome::Error(error),
        Ok(Ok((_, 0))) => Outcome::Success,
        Ok(Ok((output, _))) => Outcome::Failure(output),
    }
}

/// `grpc.health.v1.Health/Check`: one unary call, its two messages by hand.
async fn grpc(host: &str, port: u16, service: &str) -> Outcome {
    let fail = |error: String| Outcome::Failure(format!("service unhealthy: {error}"));
    let stream = match httpget::dial(host, port).await {
        Ok(stream) => stream,
        Err(error) => return Outcome::Failure(error),
    };
    let connection = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = match connection.await {
        Ok(both) => both,
        Err(error) => return fail(error.to_string()),
    };
    let call = async move {
        let mut message = Vec::new();
        if !service.is_empty() {
            message.extend([0x0a, u8::try_from(service.len()).unwrap_or(u8::MAX)]);
            message.extend(service.as_bytes());
        }
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
        frame.extend(message);
        let request =
            http::Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", "kube-probe/1.36")
                .body(Full::new(Bytes::from(frame)))
                .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let early = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let late = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
        let code = early.or(late).and_then(|code| code.to_str().ok().map(str::to_owned));
        match code.as_deref() {
            None | Some("0") => Ok(body.to_bytes()),
            Some(code) => Err(format!("rpc error: code = {code}")),
        }
    };
    let answer = tokio::select! {
        answer = call => answer,
        end = connection => Err(end.err().map_or("closed".to_owned(), |error| error.to_string())),
    };
    match answer {
        // A frame's head, then field 1 with the value SERVING.
        Ok(bytes) if bytes.get(5..7) == Some(&[0x08, 0x01]) => Outcome::Success,
        Ok(_) => fail("responded with \"NOT_SERVING\"".to_owned()),
        Err(error) => fail(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row() {
        let probe = core::Probe {
            failure_threshold: Some(3),
            success_threshold: Some(2),
            ..core::Probe::default()
        };
        let mut verdict = Verdict::default();
        let mut take = |good| verdict.take(good, &probe);
        assert_eq!(
            [take(false), take(false), take(true), take(true)],
            [None, None, None, Some(true)]
        );
        assert_eq!([take(false), take(false), take(true), take(false)], [None; 4]);
        assert_eq!([take(false), take(false), take(false)], [None, Some(false), None]);
    }
}
