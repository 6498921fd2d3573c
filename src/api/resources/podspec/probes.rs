//! Probes, lifecycle hooks and their handlers.
//!
//! Why one handler check: probes and hooks differ only in which handlers they know.

use super::super::field::{Errors, Field};
use super::super::{names, validate};

const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// The three probes of a container and its lifecycle.
pub(super) fn all(container: &Field, grace: Option<i64>, os: &Field, out: &mut Errors) {
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(&hook, HOOK_HANDLERS, grace, out);
        }
    }
    let signal = lifecycle.get("stopSignal");
    if signal.is_set() {
        stop_signal(&signal, os, out);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(name);
        if !field.is_set() {
            continue;
        }
        probe(&field, out);
        let successes = field.get("successThreshold");
        if name != "readinessProbe" {
            if successes.int() != Some(1) {
                out.push(successes.invalid("must be 1"));
            }
        } else if field.get("terminationGracePeriodSeconds").is_set() {
            out.push(
                field
                    .get("terminationGracePeriodSeconds")
                    .invalid("must not be set for readinessProbes"),
            );
        }
    }
}

/// What an init container that runs to its end may not have.
pub(super) fn none(container: &Field, out: &mut Errors) {
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(name);
        if field.is_set() {
            out.push(
                field.forbidden("may not be set for init containers without restartPolicy=Always"),
            );
        }
    }
}

fn probe(field: &Field, out: &mut Errors) {
    handler(field, PROBE_HANDLERS, None, out);
    let numbers = [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ];
    validate::all_non_negative(field, &numbers, out);
    let grace = field.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        out.push(grace.invalid("must be greater than 0"));
    }
}

fn handler(field: &Field, known: &[&str], grace: Option<i64>, out: &mut Errors) {
    let mut found = false;
    for name in known {
        let one = field.get(name);
        if !one.is_set() {
            continue;
        }
        if found {
            out.push(one.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *name {
            "exec" => validate::required(&one.get("command"), out),
            "httpGet" => http(&one, out),
            "sleep" => sleep(&one, grace, out),
            "grpc" => validate::port_number(&one.get("port"), out),
            _ => validate::port_number_or_name(&one.get("port"), out),
        }
    }
    if !found {
        out.push(field.required("must specify a handler type"));
    }
}

fn http(field: &Field, out: &mut Errors) {
    validate::required(&field.get("path"), out);
    validate::port_number_or_name(&field.get("port"), out);
    let scheme = field.get("scheme");
    if !matches!(scheme.text(), "HTTP" | "HTTPS") {
        out.push(scheme.not_supported(&["HTTP", "HTTPS"]));
    }
    let headers = field.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").text().to_owned();
        for fault in names::header_name(&name) {
            out.push(headers.invalid_as(name.as_str(), fault));
        }
    }
}

fn sleep(field: &Field, grace: Option<i64>, out: &mut Errors) {
    let seconds = field.get("seconds").int().unwrap_or(0);
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let why =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        out.push(field.invalid_as(seconds, why));
    }
}

fn stop_signal(signal: &Field, os: &Field, out: &mut Errors) {
    match os.get("name").text() {
        "" => {
            let why = "may not be set for containers with empty `spec.os.name`";
            out.push(signal.forbidden(why));
        }
        "windows" if !matches!(signal.text(), "SIGKILL" | "SIGTERM") => {
            out.push(signal.not_supported(&["SIGKILL", "SIGTERM"]));
        }
        "linux" if !is_linux_signal(signal.text()) => {
            out.push(signal.not_supported(LINUX_SIGNALS));
        }
        _ => {}
    }
}

const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn is_linux_signal(name: &str) -> bool {
    let offset = |prefix: &str, max: u8| {
        let digits = name.strip_prefix(prefix);
        digits.and_then(|digits| digits.parse().ok()).is_some_and(|n: u8| (1..=max).contains(&n))
    };
    LINUX_SIGNALS.contains(&name) || offset("SIGRTMIN+", 15) || offset("SIGRTMAX-", 14)
}
