//! Records Events: repeated ones are counted, similar ones combined, floods cut.
//!
//! Why so much care for a message: an Event is what a user reads first when something is wrong, and
//! a crash loop must not fill the store. The rules and figures are client-go's
//! `tools/record/events_cache.go`.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio::sync::mpsc;

use super::Object;
use crate::client::{PatchKind, SharedClient, Target, WriteOptions};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::Tasks;

/// Events that wait to be written; more are dropped.
const WAITING_EVENTS_MAX: usize = 1_000;
/// Keys that the correlator remembers of each sort; at the bound the oldest are forgotten.
const REMEMBERED_KEYS_MAX: usize = 4_096;
/// Different messages of one reason before they are combined.
const SIMILAR_EVENTS_MAX: usize = 10;
/// How long messages count as similar.
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Events about one object that may come at once.
const BURST_EVENTS: f64 = 25.0;
/// Seconds after which one more event about an object may come.
const REFILL_SECONDS: f64 = 300.0;

/// The two types of Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Someone may want to look.
    Warning,
}

impl EventType {
    /// As in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events as one component; clones share it.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Draft>,
}

struct Draft {
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

impl Recorder {
    /// A recorder for `component` (as in "deployment-controller"), on `host` or "".
    pub fn new(
        client: SharedClient,
        clock: SharedClock,
        tasks: &Tasks,
        component: &str,
        host: &str,
    ) -> Self {
        let (queue, mut drafts) = mpsc::channel(WAITING_EVENTS_MAX);
        let source = EventSource { component: some(component), host: some(host) };
        let stop = tasks.stop_token();
        tasks.spawn_once(format!("events of {component}"), async move {
            let mut correlator = Correlator::new(source);
            loop {
                let draft = tokio::select! {
                    draft = drafts.recv() => draft,
                    () = stop.cancelled() => return,
                };
                let Some(draft) = draft else { return };
                if let Some(write) = correlator.observe(draft, clock.now()) {
                    send(&client, write).await;
                }
            }
        });
        Self { queue }
    }

    /// Records that something happened. It never waits: at the bound the event is dropped.
    pub fn event(
        &self,
        regarding: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let draft = Draft {
            regarding: regarding.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if let Err(error) = self.queue.try_send(draft) {
            tracing::debug!("an event is dropped: {error}");
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What the correlator makes of an event.
#[derive(Clone, Debug)]
struct Write {
    event: Event,
    /// It stands already, under this name: only count, time and message change.
    repeated: bool,
}

async fn send(client: &SharedClient, write: Write) {
    let event = &write.event;
    if write.repeated {
        let body = json!({"count": event.count, "message": event.message,
            "lastTimestamp": event.last_timestamp});
        let options = WriteOptions::default();
        match client.patch(&event.target(), PatchKind::Merge, body, &options).await {
            // It has expired: written anew, with its count.
            Err(status) if status.is_not_found() => {}
            Err(status) => return tracing::debug!("an event can't be counted: {status}"),
            Ok(_) => return,
        }
    }
    let target = Target::all(&Event::gvr(), event.namespace());
    if let Err(status) = client.create(&target, event.to_value(), &WriteOptions::default()).await {
        tracing::debug!("an event can't be written: {status}");
    }
}

/// Everything that makes events alike but the message.
type SimilarKey = (String, String, String);

struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

struct Standing {
    name: String,
    count: i32,
    first: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

struct Correlator {
    source: EventSource,
    /// The last stamp in an event's name, in nanoseconds; each is later, so no two names are equal.
    stamp: i128,
    similar: Remembered<SimilarKey, Similar>,
    standing: Remembered<(SimilarKey, String), Standing>,
    buckets: Remembered<String, Bucket>,
}

impl Correlator {
    fn new(source: EventSource) -> Self {
        Self {
            source,
            stamp: 0,
            similar: Remembered::default(),
            standing: Remembered::default(),
            buckets: Remembered::default(),
        }
    }

    fn observe(&mut self, draft: Draft, now: Timestamp) -> Option<Write> {
        let about = identity(&draft.regarding);
        let alike: SimilarKey =
            (about.clone(), draft.kind.as_str().to_owned(), draft.reason.clone());
        let combined = self.combines(&alike, &draft.message, now);
        let (message, detail) = if combined {
            (format!("(combined from similar events): {}", draft.message), String::new())
        } else {
            let path = draft.regarding.field_path.clone().unwrap_or_default();
            (draft.message.clone(), format!("{path}\0{}", draft.message))
        };
        self.stamp = now.as_nanosecond().max(self.stamp + 1);
        let name = format!("{}.{:x}", draft.regarding.name.as_deref().unwrap_or(""), self.stamp);
        let fresh = || Standing { name, count: 0, first: now };
        let standing = self.standing.entry((alike, detail), fresh);
        standing.count = standing.count.saturating_add(1);
        let (name, count, first) = (standing.name.clone(), standing.count, standing.first);
        if !self.may_pass(about, now) {
            return None;
        }
        let mut event = Event {
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(now)),
            message: Some(message),
            reason: Some(draft.reason),
            type_: Some(draft.kind.as_str().to_owned()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            source: Some(self.source.clone()),
            ..Event::default()
        };
        event.metadata.name = Some(name);
        let namespace = draft.regarding.namespace.clone();
        event.metadata.namespace = Some(namespace.unwrap_or_else(|| "default".to_owned()));
        event.involved_object = draft.regarding;
        Some(Write { event, repeated: count > 1 })
    }

    /// Whether there were too many different messages of this sort lately.
    fn combines(&mut self, alike: &SimilarKey, message: &str, now: Timestamp) -> bool {
        let fresh = || Similar { messages: BTreeSet::new(), last: now };
        let similar = self.similar.entry(alike.clone(), fresh);
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(message.to_owned());
        if similar.messages.len() < SIMILAR_EVENTS_MAX {
            return false;
        }
        similar.messages.pop_first();
        true
    }

    fn may_pass(&mut self, about: String, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(about, || Bucket { tokens: BURST_EVENTS, last: now });
        let waited = now.duration_since(bucket.last).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + waited / REFILL_SECONDS).min(BURST_EVENTS);
        bucket.last = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn identity(reference: &ObjectReference) -> String {
    let parts = [
        &reference.kind,
        &reference.namespace,
        &reference.name,
        &reference.uid,
        &reference.api_version,
    ];
    parts.map(|part| part.as_deref().unwrap_or("")).join("\0")
}

/// A map that forgets: when the newer half is full, the older half goes.
struct Remembered<K, V> {
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { new: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq + Clone, V> Remembered<K, V> {
    fn entry(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        if self.new.len() >= REMEMBERED_KEYS_MAX / 2 && !self.new.contains_key(&key) {
            self.old = std::mem::take(&mut self.new);
        }
        let old = self.old.remove(&key);
        self.new.entry(key).or_insert_with(|| old.unwrap_or_else(fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(message: &str) -> Draft {
        let regarding = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some("p".to_owned()),
            ..ObjectReference::default()
        };
        let message = message.to_owned();
        Draft { regarding, kind: EventType::Warning, reason: "BackOff".to_owned(), message }
    }

    fn correlator() -> Correlator {
        Correlator::new(EventSource { component: some("kubelet"), host: None })
    }

    #[test]
    fn the_same_event_is_counted_under_its_first_name() {
        let mut correlator = correlator();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let first = correlator.observe(draft("again"), now).unwrap();
        let later = now + SignedDuration::from_secs(5);
        let second = correlator.observe(draft("again"), later).unwrap();
        assert!(!first.repeated && second.repeated);
        assert_eq!(first.event.metadata.name, second.event.metadata.name);
        assert_eq!(first.event.name(), format!("p.{:x}", now.as_nanosecond()));
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.event.first_timestamp, Some(Time(now)));
        assert_eq!(second.event.last_timestamp, Some(Time(later)));
    }

    #[test]
    fn many_similar_events_are_combined_and_floods_are_cut() {
        let mut correlator = correlator();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut written = Vec::new();
        for number in 0..40 {
            written.extend(correlator.observe(draft(&format!("try {number}")), now));
        }
        assert_eq!(written.len(), 25);
        let combined = written.iter().filter(|write| {
            write.event.message.as_deref().unwrap().starts_with("(combined from similar events): ")
        });
        assert_eq!(combined.count(), 25 - 9);
        assert_eq!(written[24].event.count, Some(16));
        let later = now + SignedDuration::from_secs(300);
        assert!(correlator.observe(draft("more"), later).is_some());
        assert!(correlator.observe(draft("more"), later).is_none());
    }
}
