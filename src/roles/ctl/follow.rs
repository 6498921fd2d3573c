//! Follows objects: the present state, then each change, for as long as it takes.
//!
//! Why once: a watch ends when the server likes, and its revision may have been compacted; whoever
//! waits must not know.

use std::ops::ControlFlow;
use std::time::Duration;

use super::kinds::Kind;
use super::session::Session;
use crate::client::{Client, ListOptions, Target, WatchEvent};
use crate::object::status::Status;
use crate::object::{Value, meta};

/// What a follower is told.
pub enum Seen {
    /// An object as it is now.
    Is(Value),
    /// All that is there has been told; from here on there are changes.
    Listed,
    /// An object is gone.
    Gone(Value),
}

/// What is followed.
pub struct Follow<'s> {
    /// Where.
    pub session: &'s Session,
    /// The kind.
    pub kind: &'s Kind,
    /// The collection.
    pub target: Target,
    /// Which of its objects.
    pub options: ListOptions,
}

impl<'s> Follow<'s> {
    /// One object, present or not.
    pub fn one(session: &'s Session, kind: &'s Kind, namespace: &str, name: &str) -> Self {
        let options =
            ListOptions { field_selector: format!("metadata.name={name}"), ..Default::default() };
        Self { session, kind, target: session.target(kind, namespace, ""), options }
    }

    /// Tells `on` until it breaks.
    pub async fn run<T>(
        &self,
        mut on: impl FnMut(Seen) -> anyhow::Result<ControlFlow<T>>,
    ) -> anyhow::Result<T> {
        loop {
            let (objects, revision) =
                self.session.list(self.kind, &self.target, &self.options).await?;
            for seen in objects.into_iter().map(Seen::Is).chain([Seen::Listed]) {
                if let ControlFlow::Break(result) = on(seen)? {
                    return Ok(result);
                }
            }
            match self.changes(revision, &mut on).await {
                Ok(result) => return Ok(result),
                // The revision is history: begin again with the present state.
                Err(error) if error.downcast_ref().is_some_and(Status::is_expired) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn changes<T>(
        &self,
        mut revision: String,
        on: &mut impl FnMut(Seen) -> anyhow::Result<ControlFlow<T>>,
    ) -> anyhow::Result<T> {
        loop {
            let options = ListOptions {
                resource_version: revision.clone(),
                allow_bookmarks: true,
                ..self.options.clone()
            };
            let mut watch = self.session.http.watch(&self.target, &options).await?;
            while let Some(event) = futures::StreamExt::next(&mut watch).await {
                let (bytes, gone) = match event? {
                    WatchEvent::Added(bytes) | WatchEvent::Modified(bytes) => (bytes, false),
                    WatchEvent::Deleted(bytes) => (bytes, true),
                    WatchEvent::Bookmark { resource_version, .. } => {
                        revision = resource_version.to_string();
                        continue;
                    }
                };
                let object: Value = serde_json::from_slice(&bytes)?;
                revision = meta::resource_version(&object).to_owned();
                let seen = if gone { Seen::Gone(object) } else { Seen::Is(object) };
                if let ControlFlow::Break(result) = on(seen)? {
                    return Ok(result);
                }
            }
        }
    }
}

/// Reads a duration as Go writes it ("1m30s"); a bare number counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}: use a form like 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("120"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "1x", "5 m", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
