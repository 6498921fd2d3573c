//! Pods that wait for a node: ready ones by priority and age, refused ones until something helps.
//!
//! Why three places: a pod that failed must not be tried again before its back-off is over, nor
//! before anything changed that one of the plug-ins that refused it cares for; and what happens
//! *during* its own cycle must count too (upstream's scheduling queue, KEP-4247).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::framework::ClusterEvent;
use super::pod::PodInfo;
use crate::stdx::backoff::Backoff;

/// How soon a refused pod is tried again, once something happened.
pub const POD_BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(1), max: Duration::from_secs(10), jitter: 0.0 };

/// A refused pod is tried again after this time even if nothing happened.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// (priority first, then arrival)
type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiting {
    info: PodInfo,
    arrival: u64,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// In `active`, at this place.
    Ready(Rank),
    /// Handed out by `pop`; whether an event of use came meanwhile.
    InFlight { touched: bool },
    /// Not before this time.
    Backoff(Duration),
    /// Until an event that one of these plug-ins wakes on, or this time.
    Refused { wakes: Vec<ClusterEvent>, until: Duration },
    /// Kept out by a plug-in.
    Gated,
}

/// The queue; time is the clock's monotonic reading, handed in.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<Rank, String>,
    timers: BTreeSet<(Duration, String)>,
    arrivals: u64,
}

impl Queue {
    /// A pod without a node came or changed. `gated` keeps it out until the next change.
    pub fn put(&mut self, info: PodInfo, gated: bool) {
        let uid = info.uid.clone();
        let known = self.pods.get_mut(&uid);
        if let Some(waiting) = known {
            let was_gated = matches!(waiting.state, State::Gated);
            waiting.info = info;
            match (&mut waiting.state, gated) {
                (State::InFlight { touched }, _) => *touched = true,
                (State::Ready(_), false) => {}
                (_, true) => self.transition(&uid, State::Gated),
                // A change of the pod itself may be all it needed.
                (State::Refused { .. }, false) => self.make_ready(&uid),
                (_, false) if was_gated => self.make_ready(&uid),
                (_, false) => {}
            }
            return;
        }
        self.arrivals += 1;
        let state = State::Gated;
        let waiting = Waiting { info, arrival: self.arrivals, failures: 0, state };
        self.pods.insert(uid.clone(), waiting);
        if !gated {
            self.make_ready(&uid);
        }
    }

    /// A pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.transition(uid, State::Gated);
        self.pods.remove(uid);
    }

    /// The next pod to try; it is in flight until `done`, `refused` or `failed`.
    pub fn pop(&mut self, now: Duration) -> Option<PodInfo> {
        self.wake_timers(now);
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.state = State::InFlight { touched: false };
        Some(waiting.info.clone())
    }

    /// No node took it; `wakes` are the events that may help.
    pub fn refused(&mut self, uid: &str, wakes: Vec<ClusterEvent>, now: Duration) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.failures += 1;
        let touched = matches!(waiting.state, State::InFlight { touched: true });
        let next = if touched {
            State::Backoff(now + POD_BACKOFF.exact(waiting.failures))
        } else {
            State::Refused { wakes, until: now + UNSCHEDULABLE_MAX }
        };
        self.transition(uid, next);
    }

    /// Binding it failed; it is tried again after its back-off.
    pub fn failed(&mut self, uid: &str, now: Duration) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.failures += 1;
        let until = now + POD_BACKOFF.exact(waiting.failures);
        self.transition(uid, State::Backoff(until));
    }

    /// Something happened that may help refused pods.
    pub fn happened(&mut self, event: ClusterEvent, now: Duration) {
        let mut woken = Vec::new();
        for (uid, waiting) in &mut self.pods {
            match &mut waiting.state {
                State::InFlight { touched } => *touched = true,
                State::Refused { wakes, .. } if wakes.contains(&event) => {
                    woken.push((uid.clone(), waiting.failures));
                }
                _ => {}
            }
        }
        for (uid, failures) in woken {
            self.transition(&uid, State::Backoff(now + POD_BACKOFF.exact(failures)));
        }
    }

    /// When `pop` may have something again without a new event; `None`: only after an event.
    pub fn next_wake(&self) -> Option<Duration> {
        if !self.active.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many pods wait, gated ones included.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Does none wait?
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn wake_timers(&mut self, now: Duration) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.make_ready(&uid);
        }
    }

    fn make_ready(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let rank = (Reverse(waiting.info.priority), waiting.arrival);
        self.transition(uid, State::Ready(rank));
    }

    /// Moves a pod to a state and keeps both indexes true.
    fn transition(&mut self, uid: &str, next: State) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        match &waiting.state {
            State::Ready(rank) => {
                self.active.remove(rank);
            }
            State::Backoff(at) | State::Refused { until: at, .. } => {
                self.timers.remove(&(*at, uid.to_owned()));
            }
            State::InFlight { .. } | State::Gated => {}
        }
        match &next {
            State::Ready(rank) => {
                self.active.insert(*rank, uid.to_owned());
            }
            State::Backoff(at) | State::Refused { until: at, .. } => {
                self.timers.insert((*at, uid.to_owned()));
            }
            State::InFlight { .. } | State::Gated => {}
        }
        waiting.state = next;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> PodInfo {
        let meta = json!({"name": name, "namespace": "default", "uid": name});
        let pod = json!({"metadata": meta, "spec": {"containers": [], "priority": priority}});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    const T0: Duration = Duration::ZERO;

    #[test]
    fn priority_goes_first_then_age() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.put(pod(name, priority), false);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(T0)).map(|pod| pod.uid).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn a_refused_pod_waits_for_an_event_that_helps_and_for_its_backoff() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), false);
        queue.pop(T0).unwrap();
        queue.refused("a", vec![ClusterEvent::Node], T0);
        queue.happened(ClusterEvent::PodGone, T0);
        assert!(queue.pop(Duration::from_secs(60)).is_none());
        queue.happened(ClusterEvent::Node, Duration::from_secs(60));
        assert!(queue.pop(Duration::from_secs(60)).is_none());
        assert!(queue.pop(Duration::from_secs(61)).is_some());
    }

    #[test]
    fn an_event_during_the_cycle_is_not_lost() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), false);
        queue.pop(T0).unwrap();
        queue.happened(ClusterEvent::PodGone, T0);
        queue.refused("a", vec![ClusterEvent::PodGone], T0);
        assert!(queue.pop(Duration::from_secs(1)).is_some());
    }

    #[test]
    fn refused_pods_are_tried_again_in_the_end() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), false);
        queue.pop(T0).unwrap();
        queue.refused("a", vec![], T0);
        assert_eq!(queue.next_wake(), Some(UNSCHEDULABLE_MAX));
        assert!(queue.pop(UNSCHEDULABLE_MAX).is_some());
    }

    #[test]
    fn a_gated_pod_waits_for_its_own_change() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), true);
        assert!(queue.pop(T0).is_none());
        queue.put(pod("a", 0), false);
        assert!(queue.pop(T0).is_some());
        queue.remove("a");
        assert!(queue.is_empty());
    }
}
