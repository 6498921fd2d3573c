//! Follows a collection for ever: the present state, then each change, resumed by revision.
//!
//! Why apart from the informer: this loop is the same for each type and each cache, so it is written
//! once over bytes, and what is made of the bytes is a [`Sink`]'s business. It never retries by
//! itself: a failed session ends with an error and its supervisor starts the next after a back-off;
//! the revision reached is kept, so nothing is read twice.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::client::{ListOptions, SharedClient, Target, Watch, WatchEvent};
use crate::object::Status;
use crate::stdx::tasks::{RESTART, Tasks};

/// Objects asked for at once where the server can't stream the present state.
const PAGE_OBJECTS: u64 = 500;

/// Takes what a reflector reads.
pub trait Sink: Send + Sync + 'static {
    /// The whole collection as it was at `revision`.
    fn replace(&self, items: Vec<Bytes>, revision: u64);
    /// An object came to be or changed.
    fn upsert(&self, object: Bytes);
    /// An object is gone; this is its last state.
    fn remove(&self, object: Bytes);
    /// Nothing up to this revision is missing.
    fn progress(&self, revision: u64);
    /// The revision up to which everything was given to this sink; 0 for none.
    fn revision(&self) -> u64;
}

/// What a reflector follows.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The collection.
    pub target: Target,
    /// As in a URL; "" for all.
    pub label_selector: String,
    /// As in a URL; "" for all.
    pub field_selector: String,
}

impl Scope {
    /// All of a collection.
    pub fn all(target: Target) -> Self {
        Self { target, label_selector: String::new(), field_selector: String::new() }
    }

    fn options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            allow_bookmarks: true,
            ..ListOptions::default()
        }
    }
}

/// Follows `scope` under `tasks` until they stop.
pub fn start(tasks: &Tasks, client: SharedClient, scope: Scope, sink: Arc<dyn Sink>) {
    let name = format!("informer {}", scope.target.gvr.group_resource());
    let session = Arc::new(Session { client, scope, sink, must_list: Mutex::new(false) });
    tasks.spawn(name, RESTART, move |stop| {
        let session = session.clone();
        async move { Ok(session.run(stop).await?) }
    });
}

struct Session {
    client: SharedClient,
    scope: Scope,
    sink: Arc<dyn Sink>,
    /// The server has no `sendInitialEvents`.
    must_list: Mutex<bool>,
}

impl Session {
    /// Watches, again whenever the server ends a watch in time. An expired revision means reading
    /// the present state again.
    async fn run(&self, stop: CancellationToken) -> Result<(), Status> {
        let mut fresh = self.sink.revision() == 0;
        loop {
            let pass = async {
                let watch = match fresh {
                    true => self.present().await?,
                    false => self.resume().await?,
                };
                self.follow(watch).await
            };
            let end = tokio::select! {
                end = pass => end,
                () = stop.cancelled() => return Ok(()),
            };
            match end {
                Ok(()) => fresh = false,
                Err(status) if status.is_expired() && !fresh => fresh = true,
                Err(status) => return Err(status),
            }
        }
    }

    async fn resume(&self) -> Result<Watch, Status> {
        let options = ListOptions {
            resource_version: self.sink.revision().to_string(),
            ..self.scope.options()
        };
        self.client.watch(&self.scope.target, &options).await
    }

    /// Gives the present state to the sink; the answer continues from there.
    async fn present(&self) -> Result<Watch, Status> {
        if !*self.must_list.lock() {
            match self.stream_present().await {
                Err(status) if matches!(status.code, 400 | 405 | 422) => {
                    tracing::debug!("{}: lists instead: {status}", self.scope.target.gvr);
                    *self.must_list.lock() = true;
                }
                other => return other,
            }
        }
        self.list_present().await?;
        self.resume().await
    }

    async fn stream_present(&self) -> Result<Watch, Status> {
        let options = ListOptions {
            send_initial_events: true,
            resource_version_match: "NotOlderThan".to_owned(),
            ..self.scope.options()
        };
        let mut watch = self.client.watch(&self.scope.target, &options).await?;
        let mut items = Vec::new();
        while let Some(event) = watch.next().await {
            match event? {
                WatchEvent::Added(bytes) | WatchEvent::Modified(bytes) => items.push(bytes),
                WatchEvent::Bookmark { resource_version, initial_events_end: true } => {
                    self.sink.replace(items, resource_version);
                    return Ok(watch);
                }
                // While the present state is sent there is nothing to delete or to resume from.
                WatchEvent::Deleted(_) | WatchEvent::Bookmark { .. } => {}
            }
        }
        Err(Status::unavailable("the watch ended before it had sent the present state"))
    }

    async fn list_present(&self) -> Result<(), Status> {
        let mut items = Vec::new();
        let mut options = ListOptions { limit: PAGE_OBJECTS, ..self.scope.options() };
        loop {
            let page = self.client.list(&self.scope.target, &options).await?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                self.sink.replace(items, page.resource_version);
                return Ok(());
            }
            options.continue_token = page.continue_token;
        }
    }

    async fn follow(&self, mut watch: Watch) -> Result<(), Status> {
        while let Some(event) = watch.next().await {
            match event? {
                WatchEvent::Added(bytes) | WatchEvent::Modified(bytes) => self.sink.upsert(bytes),
                WatchEvent::Deleted(bytes) => self.sink.remove(bytes),
                WatchEvent::Bookmark { resource_version, .. } => {
                    self.sink.progress(resource_version);
                }
            }
        }
        Ok(())
    }
}
