//! A namespace's policy: three modes, each a level and a version, read from its labels.

use std::cmp::Ordering;
use std::fmt;

use super::checks::{CHECKS, Pod, Refused};
use crate::object::Map;
use crate::object::status::FieldError;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// A level of the Pod Security Standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    /// The minor version; `None` for the latest.
    pub(super) minor: Option<u32>,
}

const OPEN: Standard = Standard { level: Level::Privileged, minor: None };

impl fmt::Display for Standard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            None => write!(out, "{level}:latest"),
            Some(minor) => write!(out, "{level}:v1.{minor}"),
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Refused.
    pub(super) enforce: Standard,
    /// Told to the client.
    pub(super) warn: Standard,
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// `Some(None)` is the latest.
fn minor(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let number = text.strip_prefix("v1.")?;
    let is_plain = number == "0" || !number.starts_with('0');
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && is_plain).then(|| number.parse().ok().map(Some)).flatten()
}

/// The policy of labels, and what is wrong with them.
pub(super) fn read(labels: Option<&Map>) -> (Policy, Vec<FieldError>) {
    let mut errors = Vec::new();
    let text = |mode: &str| {
        let value = labels?.get(&format!("{PREFIX}{mode}"))?;
        value.as_str()
    };
    let mut wrong = |mode: &str, value: &str, detail: &str| {
        let field = format!("metadata.labels[{PREFIX}{mode}]");
        errors.push(FieldError::invalid(field, value, detail));
    };
    let mut standard = |mode: &str, on_error: Level| {
        let mut standard = OPEN;
        if let Some(value) = text(mode) {
            standard.level = level(value).unwrap_or_else(|| {
                wrong(mode, value, "must be one of privileged, baseline, restricted");
                on_error
            });
        }
        let mode = format!("{mode}-version");
        if let Some(value) = text(&mode) {
            standard.minor = minor(value).unwrap_or_else(|| {
                wrong(&mode, value, "must be \"latest\" or \"v1.x\"");
                None
            });
        }
        standard
    };
    // A label that can't be read is enforced to the full, but warned of and audited not at all.
    let enforce = standard("enforce", Level::Restricted);
    // Audit annotations have no log to go to yet; the label is checked all the same.
    standard("audit", Level::Privileged);
    let mut warn = standard("warn", Level::Privileged);
    let enforced = text("enforce").and_then(level).is_some();
    if text("warn").is_none() && enforced && enforce.level > warn.level {
        warn.level = enforce.level;
        if text("warn-version").is_none() {
            warn.minor = enforce.minor;
        }
    }
    (Policy { enforce, warn }, errors)
}

/// What a standard refuses about a pod.
pub(super) fn evaluate(standard: Standard, pod: &Pod<'_>) -> Vec<Refused> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let minor = standard.minor.unwrap_or(u32::MAX);
    let current = |check: &super::checks::Check| {
        let applies = check.level <= standard.level;
        check
            .versions
            .iter()
            .rev()
            .find(|(from, _)| *from <= minor)
            .filter(|_| applies)
            .map(|(_, function)| *function)
    };
    let replaced: Vec<&str> = CHECKS
        .iter()
        .filter(|check| current(check).is_some())
        .filter_map(|check| check.replaces)
        .collect();
    CHECKS
        .iter()
        .filter(|check| !replaced.contains(&check.id))
        .filter_map(current)
        .filter_map(|function| function(pod))
        .collect()
}

/// The reasons, with their details in brackets.
pub(super) fn details(refused: &[Refused]) -> String {
    let texts: Vec<String> = refused
        .iter()
        .map(|one| match one.detail.as_str() {
            "" => one.reason.clone(),
            detail => format!("{} ({detail})", one.reason),
        })
        .collect();
    texts.join(", ")
}

/// Whether `new` asks for more than `old`, so that pods that run already should be looked at.
pub(super) fn is_stricter(new: Standard, old: Standard) -> bool {
    new != old
        && new.level != Level::Privileged
        && (new.minor != old.minor || new.level.cmp(&old.level) == Ordering::Greater)
}
