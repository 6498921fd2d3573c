//! `ctl wait`: by watch, one line of progress for each change.
//!
//! Why `--all` waits for a first object too: a script that starts a server and then waits for its
//! nodes must not lose the race against the node's registration.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::files::Files;
use super::follow::{self, Follow, Seen};
use super::kinds::Kind;
use super::output;
use super::resources::{self, Choice, Found, Part};
use super::session::Session;
use crate::object::status::Status;
use crate::object::{Value, meta};

/// How long is meant by "no limit" (a negative timeout): a week, as kubectl has it.
const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Wait until objects are in a state
#[derive(Args, Clone, Debug)]
pub struct Wait {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
    /// condition=NAME[=VALUE], create or delete
    #[arg(long = "for", value_name = "STATE")]
    state: State,
    /// Give up after this long, as in 90s or 5m; 0 looks once; -1s waits for a week
    #[arg(long, default_value = "30s", value_parser = limit, allow_hyphen_values = true)]
    timeout: Duration,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

fn limit(text: &str) -> Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(negative) => follow::duration(negative).map(|_| FOREVER),
        None => follow::duration(text),
    }
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Condition(String, String),
    Created,
    Gone,
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("delete" | "deletion", "") => Ok(Self::Gone),
            ("create" | "creation", "") => Ok(Self::Created),
            ("condition", wanted) if !wanted.is_empty() => {
                let (name, value) = wanted.split_once('=').unwrap_or((wanted, "true"));
                Ok(Self::Condition(name.to_owned(), value.to_owned()))
            }
            ("jsonpath", _) => Err("jsonpath is not supported here; kubectl wait has it".into()),
            _ => Err(format!(
                "unrecognized condition: {text:?}; use condition=NAME[=VALUE], create or delete"
            )),
        }
    }
}

/// Whether a condition has the wanted status for the present generation.
fn condition_met(object: &Value, name: &str, value: &str) -> bool {
    let conditions = meta::at(object, &["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    let Some(condition) =
        conditions.find(|one| meta::text(one, &["type"]).eq_ignore_ascii_case(name))
    else {
        return false;
    };
    let observed = condition.get("observedGeneration");
    let observed = observed.or_else(|| meta::at(object, &["status", "observedGeneration"]));
    if observed.and_then(Value::as_i64).is_some_and(|seen| seen < meta::generation(object)) {
        return false;
    }
    meta::text(condition, &["status"]).eq_ignore_ascii_case(value)
}

/// What is said of an object while it is waited for.
fn progress(object: &Value, state: &State) -> String {
    match state {
        State::Condition(name, _) => {
            let conditions = meta::at(object, &["status", "conditions"]).and_then(Value::as_array);
            let mut conditions = conditions.into_iter().flatten();
            let found =
                conditions.find(|one| meta::text(one, &["type"]).eq_ignore_ascii_case(name));
            match found {
                None => format!("no condition {name} yet"),
                Some(condition) => {
                    let parts = ["status", "reason", "message"];
                    let parts = parts.map(|part| meta::text(condition, &[part]));
                    let parts: Vec<&str> =
                        parts.into_iter().filter(|part| !part.is_empty()).collect();
                    format!("{name} is {}", parts.join(": "))
                }
            }
        }
        State::Created => "not there yet".to_owned(),
        State::Gone if meta::is_deleting(object) => {
            let finalizers = meta::finalizers(object);
            match finalizers.is_empty() {
                true => "is ending".to_owned(),
                false => format!("is ending; finalizers: {}", finalizers.join(", ")),
            }
        }
        State::Gone => "is still there".to_owned(),
    }
}

impl Wait {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let deadline = Instant::now() + self.timeout;
        let found = self.objects(session, deadline).await?;
        let mut code = 0;
        for (kind, namespace, name) in found {
            let once = self.timeout.is_zero();
            let wait = until(session, kind, &namespace, &name, &self.state, once, "");
            let result = match self.timeout.is_zero() {
                true => Ok(wait.await),
                false => timeout_at(deadline, wait).await,
            };
            match result {
                Ok(Ok(())) => output::print(&format!("{} condition met\n", kind.named(&name)))?,
                Ok(Err(error)) => {
                    code = super::super::EXIT_FAILURE;
                    eprintln!("{}", super::errors::text(&error).unwrap_or_default());
                }
                Err(_) => {
                    code = super::super::EXIT_FAILURE;
                    let what = format!("{}/{name}", kind.gvr.resource);
                    eprintln!("error: timed out waiting for the condition on {what}");
                }
            }
        }
        Ok(code)
    }

    /// The objects to wait for, by place; not all need to be there.
    async fn objects<'s>(
        &self,
        session: &'s Session,
        deadline: Instant,
    ) -> anyhow::Result<Vec<(&'s Kind, String, String)>> {
        let place = |found: Found<'s>| (found.kind, found.namespace, found.name);
        if !self.files.filename.is_empty() {
            let found = resources::from_files(session, &self.files).await?;
            return Ok(found.into_iter().map(place).collect());
        }
        let mut all = Vec::new();
        for part in resources::parts(session, &self.choice.words).await? {
            let kind = match part {
                Part::One(kind, name) => {
                    let target = session.target(kind, &session.namespace, &name);
                    let namespace = target.namespace.clone().unwrap_or_default();
                    let missing = session.get(&target).await.err();
                    match (missing, &self.state) {
                        (Some(error), State::Gone) if error.is_not_found() => {}
                        (Some(error), State::Created) if error.is_not_found() => {
                            all.push((kind, namespace, name));
                        }
                        (Some(error), _) => return Err(error.into()),
                        (None, _) => all.push((kind, namespace, name)),
                    }
                    continue;
                }
                Part::All(kind) => kind,
            };
            anyhow::ensure!(
                self.all
                    || !self.choice.selector.is_empty()
                    || !self.choice.field_selector.is_empty(),
                "resource(s) were provided, but no name was specified; name some, or use --all"
            );
            let namespace = if self.all_namespaces { "" } else { session.namespace.as_str() };
            let target = session.target(kind, namespace, "");
            let follow = Follow { session, kind, target, options: self.choice.options() };
            let first = follow.run(collect(self.state == State::Gone || self.timeout.is_zero()));
            if let Ok(found) = timeout_at(deadline, first).await {
                all.extend(found?.into_iter().map(|(space, name)| (kind, space, name)));
            }
        }
        anyhow::ensure!(
            !all.is_empty() || self.state == State::Gone,
            "no matching resources found"
        );
        Ok(all)
    }
}

/// Collects what is there; unless `none_is_enough`, waits for a first object.
fn collect(
    none_is_enough: bool,
) -> impl FnMut(Seen) -> anyhow::Result<ControlFlow<Vec<(String, String)>>> {
    let mut places = Vec::new();
    let mut listed = false;
    move |seen| {
        match seen {
            Seen::Is(object) => {
                places.push((meta::namespace(&object).to_owned(), meta::name(&object).to_owned()));
            }
            Seen::Listed => listed = true,
            Seen::Gone(_) => {}
        }
        let enough = listed && (none_is_enough || !places.is_empty());
        if !enough {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(ControlFlow::Break(std::mem::take(&mut places)))
    }
}

async fn until(
    session: &Session,
    kind: &Kind,
    namespace: &str,
    name: &str,
    state: &State,
    once: bool,
    uid: &str,
) -> anyhow::Result<()> {
    let follow = Follow::one(session, kind, namespace, name);
    let mut there = false;
    let mut said = String::new();
    let check = |seen: Seen| {
        let done = match (&seen, state) {
            (Seen::Gone(_), State::Gone) => true,
            (Seen::Listed, State::Gone) => !there,
            (Seen::Is(object), State::Gone) => !uid.is_empty() && meta::uid(object) != uid,
            (Seen::Is(_), State::Created) => true,
            (Seen::Is(object), State::Condition(name, value)) => condition_met(object, name, value),
            (Seen::Listed, State::Condition(..)) if !there => {
                return Err(Status::not_found(&kind.gvr, name).into());
            }
            _ => false,
        };
        if done {
            return Ok(ControlFlow::Break(()));
        }
        match seen {
            Seen::Is(object) => {
                there = true;
                let line = progress(&object, state);
                if said != line {
                    eprintln!("{}: {line}", kind.named(name));
                    said = line;
                }
            }
            Seen::Listed if once => {
                anyhow::bail!("condition not met for {}/{name}", kind.gvr.resource);
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    };
    follow.run(check).await
}

/// Waits until an object is gone, saying so as it goes. Another of the same name does not count.
pub async fn gone(session: &Session, found: &Found<'_>, uid: &str) -> anyhow::Result<()> {
    until(session, found.kind, &found.namespace, &found.name, &State::Gone, false, uid).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_of_an_older_generation_does_not_count() {
        let mut object = json!({"metadata": {"generation": 2}, "status": {
            "observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}});
        assert!(!condition_met(&object, "available", "true"));
        object["status"]["observedGeneration"] = json!(2);
        assert!(condition_met(&object, "available", "true"));
        assert!(!condition_met(&object, "Progressing", "true"));
    }

    #[test]
    fn states_are_read_and_the_unsupported_is_refused() {
        let ready = State::Condition("Ready".into(), "true".into());
        assert_eq!("condition=Ready".parse(), Ok(ready));
        assert_eq!("delete".parse(), Ok(State::Gone));
        let refused = "jsonpath={.status}=x".parse::<State>().unwrap_err();
        assert!(refused.contains("not supported"), "{refused}");
    }
}
