//! A queue of keys: each is in it once, is worked once at a time, and comes back after a delay that
//! grows with its failures.
//!
//! Why keys, not events: a worker reads the newest state when it starts, so a hundred changes cost
//! one pass. At the bound a new key is refused and counted; the driver's periodic pass over all keys
//! brings it back.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stdx::backoff::Backoff;

/// Keys that one queue holds, waiting and delayed each.
pub const QUEUE_KEYS_MAX: usize = 200_000;
/// How long a failed key waits.
pub const RETRY: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(60));

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or asked for while being worked.
    dirty: HashSet<K>,
    working: HashSet<K>,
    delayed: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    refused: u64,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    retry: Backoff,
}

/// A handle to a queue; clones share it.
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Clone + Ord + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// An empty queue with the usual back-off.
    pub fn new() -> Self {
        Self::with_retry(RETRY)
    }

    /// An empty queue.
    pub fn with_retry(retry: Backoff) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            refused: 0,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake: Notify::new(), retry }) }
    }

    /// Asks for a key to be worked.
    pub fn add(&self, key: K) {
        if self.inner.state.lock().mark(key) {
            self.inner.wake.notify_one();
        }
    }

    /// Asks for a key to be worked after a delay; an earlier time that it has already stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.inner.state.lock();
        let at = Instant::now() + delay;
        match state.due.get(&key).copied() {
            Some(present) if present <= at => return,
            Some(present) => {
                state.delayed.remove(&(present, key.clone()));
            }
            None if state.due.len() >= QUEUE_KEYS_MAX => {
                state.refused += 1;
                return;
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.delayed.insert((at, key));
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Asks for a key again after the back-off of one more failure; the answer is that delay.
    pub fn retry(&self, key: K) -> Duration {
        let failures = {
            let mut state = self.inner.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let delay = self.inner.retry.delay(failures);
        self.add_after(key, delay);
        delay
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// How often a key has failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key. It is nobody else's until [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let wake = self.inner.wake.notified();
            let due = {
                let mut state = self.inner.state.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    let more = !state.ready.is_empty() || !state.delayed.is_empty();
                    drop(state);
                    if more {
                        // Another worker may sleep on a wake-up that this one has swallowed.
                        self.inner.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = wake => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => wake.await,
            }
        }
    }

    /// Gives a key back; if it was asked for meanwhile it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.inner.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// How many keys wait or are being worked; delayed ones do not count.
    pub fn len(&self) -> usize {
        let state = self.inner.state.lock();
        state.dirty.union(&state.working).count()
    }

    /// Whether no key waits or is being worked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys were refused at the bound.
    pub fn refused(&self) -> u64 {
        self.inner.state.lock().refused
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    fn mark(&mut self, key: K) -> bool {
        if self.dirty.contains(&key) {
            return false;
        }
        if self.dirty.len() >= QUEUE_KEYS_MAX {
            self.refused += 1;
            return false;
        }
        self.dirty.insert(key.clone());
        if self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn ripen(&mut self, now: Instant) {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
            && let Some((_, key)) = self.delayed.pop_first()
        {
            self.due.remove(&key);
            self.mark(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_never_worked_twice_at_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        let early = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(early.is_err(), "a is still being worked");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest_time_and_grow_with_failures() {
        let exact = Backoff { jitter: 0.0, ..RETRY };
        let queue = Queue::with_retry(exact);
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(&"a");
        let late = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(late.is_err());
        assert_eq!(queue.retry("a"), Duration::from_millis(5));
        assert_eq!(queue.retry("a"), Duration::from_millis(10));
        queue.forget(&"a");
        assert_eq!(queue.retry("a"), Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn every_waiting_worker_is_woken() {
        let queue = Queue::new();
        let work = async { tokio::join!(queue.next(), queue.next(), queue.next()) };
        let feed = async {
            queue.add(1);
            queue.add(2);
            queue.add(3);
        };
        let ((a, b, c), ()) = tokio::join!(work, feed);
        assert_eq!(BTreeSet::from([a, b, c]).len(), 3);
    }
}
