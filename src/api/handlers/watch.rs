//! WATCH: the present state where it is asked for, then each change once and in order.
//!
//! Why a stream over the store's cursor: history is the only buffer; a slow client costs nothing
//! and ends with 410 when it falls behind, and never sees a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rand::Rng;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::{convert, list};
use crate::api::kind::Kind;
use crate::api::server::Call;
use crate::client::{ListOptions, Watch, WatchEvent};
use crate::object::status::{Result, Status};
use crate::stdx::limits::{WATCH_BOOKMARK_INTERVAL, WATCH_TIMEOUT_MIN};
use crate::store::{Entry, Event, EventKind, View, Watcher};

/// How long before its end a watch with bookmarks gets a last one.
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

struct Following {
    kind: Arc<Kind>,
    filter: Filter,
    watcher: Watcher,
    ready: VecDeque<Result<WatchEvent>>,
    bookmarks: Option<Interval>,
    /// The revision that the client knows of.
    told: u64,
    last_bookmark: Option<Instant>,
    end: Instant,
    stop: CancellationToken,
    ended: bool,
}

/// Follows a collection.
pub async fn watch(call: &Call, options: &ListOptions) -> Result<Watch> {
    let filter = Filter::new(call, options)?;
    let version = options.resource_version.as_str();
    let from_state = matches!(version, "" | "0") || options.send_initial_events;
    let mut ready = VecDeque::new();
    let after = if from_state {
        let view = list::view(call, version).await?;
        initial(call, &filter, &view, &mut ready)?;
        if options.send_initial_events && options.allow_bookmarks {
            let resource_version = view.revision();
            let end = WatchEvent::Bookmark { resource_version, initial_events_end: true };
            ready.push_back(Ok(end));
        }
        view.revision()
    } else {
        list::revision(version)?
    };
    let watcher = call.api.data.watch(filter.range.clone(), after)?;
    let life = match options.timeout_seconds {
        0 => WATCH_TIMEOUT_MIN.mul_f64(1.0 + rand::rng().random_range(0.0..1.0)),
        seconds => Duration::from_secs(seconds.min(24 * 60 * 60)),
    };
    let end = Instant::now() + life;
    let bookmarks = options.allow_bookmarks.then(|| {
        let first = Instant::now() + WATCH_BOOKMARK_INTERVAL;
        let mut ticks = tokio::time::interval_at(first, WATCH_BOOKMARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let last_bookmark = bookmarks.as_ref().and_then(|_| end.checked_sub(LAST_BOOKMARK_BEFORE_END));
    let following = Following {
        kind: call.kind.clone(),
        filter,
        watcher,
        ready,
        bookmarks,
        told: after,
        last_bookmark,
        end,
        stop: call.api.tasks.stop_token(),
        ended: false,
    };
    Ok(futures::stream::unfold(following, |mut this| async move {
        this.next().await.map(|event| (event, this))
    })
    .boxed())
}

fn initial(
    call: &Call,
    filter: &Filter,
    view: &View,
    ready: &mut VecDeque<Result<WatchEvent>>,
) -> Result<()> {
    for entry in view.range(&filter.range, None) {
        if filter.matches(&entry.value)? {
            let bytes = convert::bytes(&call.kind, &entry.value)?;
            ready.push_back(Ok(WatchEvent::Added(bytes)));
        }
    }
    Ok(())
}

impl Following {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.ended |= event.is_err();
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(ticks) => drop(ticks.tick().await),
                    None => std::future::pending().await,
                }
            };
            let last = self.last_bookmark;
            let last = async move {
                match last {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => self.ended = true,
                () = tokio::time::sleep_until(self.end) => self.ended = true,
                events = self.watcher.next() => match events {
                    Some(Ok(events)) => self.take(events),
                    Some(Err(error)) => {
                        self.ready.push_back(Err(crate::api::data::failure(error)));
                    }
                    None => self.ended = true,
                },
                () = tick => self.bookmark(),
                () = last => {
                    self.last_bookmark = None;
                    self.bookmark();
                }
            }
        }
    }

    fn bookmark(&mut self) {
        let resource_version = self.watcher.progress();
        if resource_version > self.told {
            self.told = resource_version;
            let mark = WatchEvent::Bookmark { resource_version, initial_events_end: false };
            self.ready.push_back(Ok(mark));
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            self.told = self.told.max(event.revision);
            match self.seen(&event) {
                Ok(None) => {}
                Ok(Some(event)) => self.ready.push_back(Ok(event)),
                Err(status) => {
                    self.ready.push_back(Err(status));
                    return;
                }
            }
        }
    }

    /// The event as this client sees it: an object that comes to match is added, one that ceases
    /// to match is deleted.
    fn seen(&self, event: &Event) -> Result<Option<WatchEvent>> {
        let matched = |entry: Option<&Arc<Entry>>| match entry {
            Some(entry) => self.filter.matches(&entry.value),
            None => Ok(false),
        };
        let gone = |entry: &Entry| self.bytes(&entry.value_at_revision(event.revision));
        if event.kind == EventKind::Delete {
            let last = &event.entry;
            return Ok(match matched(Some(last))? {
                true => Some(WatchEvent::Deleted(gone(last)?)),
                false => None,
            });
        }
        let (before, after) = (matched(event.prev.as_ref())?, matched(Some(&event.entry))?);
        Ok(match (before, after, &event.prev) {
            (false, true, _) => Some(WatchEvent::Added(self.bytes(&event.entry.value)?)),
            (true, true, _) => Some(WatchEvent::Modified(self.bytes(&event.entry.value)?)),
            (true, false, Some(prev)) => Some(WatchEvent::Deleted(gone(prev)?)),
            _ => None,
        })
    }

    fn bytes(&self, stored: &Bytes) -> Result<Bytes> {
        convert::bytes(&self.kind, stored)
    }
}

/// A watch that only says why it is over (a revision that is too old is told inside the stream).
pub fn refused(status: Status) -> Watch {
    futures::stream::once(async move { Err(status) }).boxed()
}
