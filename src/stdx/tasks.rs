//! The supervisor: the only place that spawns tasks.
//!
//! Why: a bare spawn swallows panics and outlives its owner. Here each task has a name, a policy
//! for its end (fatal, restart with back-off, once) and a drain deadline; a panic in one feature is
//! a logged restart of that feature, and shutdown waits for all of them, in reverse order of start.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::limits::DRAIN_DEADLINE;

/// What the end of a task means.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// The process cannot go on without it: an end or a panic stops everything.
    Fatal,
    /// It is started again after a back-off.
    Restart(Backoff),
    /// It may end; a panic is logged.
    Once,
}

/// A restart policy that suits most loops.
pub const RESTART: Policy =
    Policy::Restart(Backoff::new(Duration::from_millis(100), Duration::from_secs(30)));

/// How long a task must have run for its failures to be forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// A handle to the process's tasks; clones share them.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    stop: CancellationToken,
    fatal: Mutex<Option<String>>,
    running: Mutex<Vec<(String, JoinHandle<()>)>>,
    parent: Option<Tasks>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// A supervisor with no tasks.
    pub fn new() -> Self {
        Self::build(CancellationToken::new(), None)
    }

    fn build(stop: CancellationToken, parent: Option<Tasks>) -> Self {
        let inner =
            Inner { stop, fatal: Mutex::new(None), running: Mutex::new(Vec::new()), parent };
        Self { inner: Arc::new(inner) }
    }

    /// A group of tasks that stops with this one, or earlier by itself. A fatal end in it is fatal
    /// here too.
    pub fn child(&self) -> Self {
        Self::build(self.inner.stop.child_token(), Some(self.clone()))
    }

    /// The token that is cancelled when tasks should stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Runs `make()` under `policy`. The future should end soon after its stop token is cancelled;
    /// it is dropped at the drain deadline.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, policy: Policy, mut make: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name = name.into();
        let tasks = self.clone();
        let label = name.clone();
        let run = async move {
            let mut failures = 0_u32;
            loop {
                let started = tokio::time::Instant::now();
                let stop = tasks.inner.stop.clone();
                let end = AssertUnwindSafe(make(stop.clone())).catch_unwind().await;
                if stop.is_cancelled() {
                    return;
                }
                let reason = describe(end);
                if started.elapsed() > HEALTHY_AFTER {
                    failures = 0;
                }
                failures += 1;
                match policy {
                    Policy::Once => {
                        if let Err(reason) = reason {
                            tracing::error!(task = %label, "task failed: {reason}");
                        }
                        return;
                    }
                    Policy::Fatal => {
                        let reason = reason.err().unwrap_or_else(|| "ended".to_owned());
                        tasks.fail(format!("task {label}: {reason}"));
                        return;
                    }
                    Policy::Restart(backoff) => {
                        let delay = backoff.delay(failures);
                        let reason = reason.err().unwrap_or_else(|| "ended".to_owned());
                        tracing::warn!(task = %label, ?delay, "task will be restarted: {reason}");
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
            }
        };
        #[allow(clippy::disallowed_methods)] // the one place that may
        let handle = tokio::spawn(run);
        let mut running = self.inner.running.lock();
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name, handle));
    }

    /// Runs one future to its end, once.
    pub fn spawn_once<Fut>(&self, name: impl Into<String>, future: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut slot = Some(future);
        self.spawn(name, Policy::Once, move |_| {
            let future = slot.take();
            async move {
                if let Some(future) = future {
                    future.await;
                }
                Ok(())
            }
        });
    }

    /// Stops everything because of `reason`.
    pub fn fail(&self, reason: String) {
        tracing::error!("fatal: {reason}");
        self.inner.fatal.lock().get_or_insert(reason.clone());
        self.inner.stop.cancel();
        if let Some(parent) = &self.inner.parent {
            parent.fail(reason);
        }
    }

    /// Why the tasks were stopped, if it was a failure.
    pub fn failure(&self) -> Option<String> {
        self.inner.fatal.lock().clone()
    }

    /// Asks all tasks to stop and waits for them, newest first, up to the drain deadline each.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        loop {
            let Some((name, mut handle)) = self.inner.running.lock().pop() else { return };
            if tokio::time::timeout(DRAIN_DEADLINE, &mut handle).await.is_err() {
                tracing::warn!(task = %name, "did not stop within {DRAIN_DEADLINE:?}; cut off");
                handle.abort();
            }
        }
    }
}

type TaskEnd = Result<anyhow::Result<()>, Box<dyn std::any::Any + Send>>;

fn describe(end: TaskEnd) -> Result<(), String> {
    match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_panic_restarts_the_task_and_nothing_else() {
        let tasks = Tasks::new();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();
        tasks.spawn("panics twice", RESTART, move |stop| {
            let run = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run >= 2, "not yet");
                stop.cancelled().await;
                Ok(())
            }
        });
        while runs.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(tasks.failure().is_none());
        tasks.shutdown().await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_fatal_end_in_a_child_stops_the_parent() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.spawn("dies", Policy::Fatal, |_| async { anyhow::bail!("no disk") });
        tasks.stop_token().cancelled().await;
        assert_eq!(tasks.failure().as_deref(), Some("task dies: no disk"));
        tasks.shutdown().await;
    }
}
