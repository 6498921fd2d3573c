//! What history the leader lets go of: older than an age, or more than so many bytes.
//!
//! Why the leader decides and the log carries it: apply reads no clock. Why monotonic samples
//! instead of a time in each event: a wall clock that jumps an hour must not drop an hour of
//! history. After a restart history is kept a little longer than asked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::machine::{Space, State};
use super::txn::Keyspace;

/// Samples over the whole age: history is let go in steps of a thirtieth of it.
const SAMPLES: u32 = 30;

/// Decides what to drop.
pub(super) struct Retention {
    age_max: Duration,
    bytes_max: usize,
    /// When, and each keyspace's revision then.
    samples: VecDeque<(Instant, [u64; 3])>,
    /// What has been proposed already.
    proposed: [u64; 3],
    /// What is old enough.
    aged: [u64; 3],
}

impl Retention {
    pub(super) fn new(age_max: Duration, bytes_max: usize) -> Self {
        let (proposed, aged) = ([0; 3], [0; 3]);
        Self { age_max, bytes_max, samples: VecDeque::new(), proposed, aged }
    }

    /// Notes where the revisions stand now.
    pub(super) fn sample(&mut self, state: &State) {
        self.sample_at(Instant::now(), state);
    }

    fn sample_at(&mut self, now: Instant, state: &State) {
        let step = self.age_max / SAMPLES;
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= step) {
            self.samples.push_back((now, state.spaces.each_ref().map(|space| space.revision)));
        }
        while let Some((at, revisions)) = self.samples.front()
            && now.duration_since(*at) >= self.age_max
        {
            self.aged = *revisions;
            self.samples.pop_front();
        }
    }

    /// Whether [`Self::due`] would say anything.
    pub(super) fn is_due(&self, state: &State) -> bool {
        Keyspace::ALL.into_iter().any(|keyspace| self.drop_to(state, keyspace).is_some())
    }

    /// Leadership is gone, and perhaps what was proposed with it.
    pub(super) fn forget_proposed(&mut self) {
        self.proposed = [0; 3];
    }

    /// What to drop now; each only once.
    pub(super) fn due(&mut self, state: &State) -> Vec<(Keyspace, u64)> {
        let mut due = Vec::new();
        for keyspace in Keyspace::ALL {
            if let Some(revision) = self.drop_to(state, keyspace) {
                self.proposed[keyspace.index()] = revision;
                due.push((keyspace, revision));
            }
        }
        due
    }

    fn drop_to(&self, state: &State, keyspace: Keyspace) -> Option<u64> {
        let space = state.space(keyspace);
        let gone = space.compacted.max(self.proposed[keyspace.index()]);
        let mut revision = self.aged[keyspace.index()];
        // A proposal under way will free bytes that are still counted here.
        if space.history_bytes > self.bytes_max && gone == space.compacted {
            revision = revision.max(heavy_until(space, self.bytes_max / 4 * 3));
        }
        (revision > gone).then_some(revision)
    }
}

/// The revision up to which history must go to weigh no more than `bytes`.
fn heavy_until(space: &Space, bytes: usize) -> u64 {
    let mut excess = space.history_bytes.saturating_sub(bytes);
    let mut until = space.compacted;
    for ((revision, _), event) in &space.history {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(event.weight());
        until = *revision;
    }
    until
}
