//! Decides the next step of a Deployment: which sets to make, scale or delete, and what to tell.
//!
//! Why on a copy: the rules read the sizes that earlier rules of the same pass have set, so the plan
//! works on copies of the sets and its steps are the difference at the end. The rules and their
//! order are upstream's (`sync.go`, `rolling.go`, `recreate.go`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::is_recreate;
use super::progress::{self, condition, find, set_condition};
use super::scale::{self, replicas};
use super::sets::{self, DESIRED_REPLICAS, REVISION, available, size};
use crate::reconcile::{Change, Object};

/// A write, and the event that follows when it is done.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// The write.
    pub change: Change,
    /// The text of a ScalingReplicaSet event.
    pub event: Option<String>,
}

/// What a pass should do.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order; after a failure the rest waits.
    pub steps: Vec<Step>,
    /// The Deployment's new revision annotation.
    pub revision: Option<String>,
    /// The Deployment's new status.
    pub status: Option<DeploymentStatus>,
    /// When to look again although nothing changes.
    pub again: Option<Duration>,
}

/// Plans from the sets that the Deployment owns. `old_pods_run` matters to Recreate only.
pub fn plan(
    deployment: &Deployment,
    owned: &[Arc<ReplicaSet>],
    old_pods_run: bool,
    now: Timestamp,
) -> Plan {
    let mut world = World::new(deployment, owned, now);
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    let rolls = if deployment.is_deleting() {
        world.take_newest();
        false
    } else {
        progress::note_pause(deployment, &mut world.status, now);
        world.take_newest();
        if paused || world.is_rescaled() {
            world.rescale();
            if paused {
                world.clean_up();
            }
            false
        } else {
            if is_recreate(deployment) {
                world.recreate(old_pods_run);
            } else {
                world.roll();
            }
            true
        }
    };
    world.finish(rolls)
}

struct Work {
    /// As it stands; `None` for one to be made.
    before: Option<Arc<ReplicaSet>>,
    set: ReplicaSet,
    event: Option<String>,
    delete: bool,
}

struct World<'a> {
    deployment: &'a Deployment,
    now: Timestamp,
    /// Oldest first.
    sets: Vec<Work>,
    newest: Option<usize>,
    /// The present status with the conditions that this pass sets.
    status: DeploymentStatus,
    revision: Option<String>,
}

impl<'a> World<'a> {
    fn new(deployment: &'a Deployment, owned: &[Arc<ReplicaSet>], now: Timestamp) -> Self {
        let mut sets: Vec<Work> = owned
            .iter()
            .map(|set| Work {
                before: Some(set.clone()),
                set: (**set).clone(),
                event: None,
                delete: false,
            })
            .collect();
        sets.sort_by(|a, b| sets::by_age(&a.set, &b.set));
        let newest = sets.iter().position(|work| sets::is_of_template(&work.set, deployment));
        let status = deployment.status.clone().unwrap_or_default();
        Self { deployment, now, sets, newest, status, revision: None }
    }

    fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|at| Some(*at) != self.newest).collect()
    }

    fn active_old(&self) -> Vec<usize> {
        self.old().into_iter().filter(|at| self.size(*at) > 0).collect()
    }

    fn size(&self, at: usize) -> i32 {
        size(&self.sets[at].set)
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|work| size(&work.set)).sum()
    }

    fn next_revision(&self) -> i64 {
        let old = self.old().into_iter().map(|at| sets::revision(&self.sets[at].set));
        old.max().unwrap_or(0) + 1
    }

    /// Brings the newest set's annotations up to date, and the Deployment's revision.
    fn take_newest(&mut self) {
        let Some(at) = self.newest else { return };
        let revision = self.next_revision();
        let set = &mut self.sets[at].set;
        sets::annotate_newest(self.deployment, set, revision, false);
        if let (Some(set), Some(spec)) = (&mut set.spec, &self.deployment.spec) {
            set.min_ready_seconds = spec.min_ready_seconds;
        }
        let (name, revision) = (set.name().to_owned(), set.annotation(REVISION).map(str::to_owned));
        self.set_revision(revision);
        let unknown = find(&self.status, "Progressing").is_none();
        if progress::deadline(self.deployment).is_some() && unknown {
            self.note_progress("FoundNewReplicaSet", &format!("Found new replica set {name:?}"));
        }
    }

    fn set_revision(&mut self, revision: Option<String>) {
        let present = self.deployment.annotation(REVISION);
        self.revision = revision.filter(|revision| Some(revision.as_str()) != present);
    }

    fn note_progress(&mut self, reason: &str, message: &str) {
        let new = condition("Progressing", "True", reason, message, self.now);
        set_condition(&mut self.status.conditions, new);
    }

    fn make_newest(&mut self) {
        let Some(spec) = &self.deployment.spec else { return };
        if self.newest.is_some() {
            return;
        }
        let revision = self.next_revision();
        let mut set = sets::make(self.deployment, spec);
        let number = scale::newest_size(self.deployment, self.total(), 0);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(number);
        }
        sets::annotate_newest(self.deployment, &mut set, revision, true);
        let name = set.name().to_owned();
        let event =
            (number > 0).then(|| format!("Scaled up replica set {name} from 0 to {number}"));
        self.sets.push(Work { before: None, set, event, delete: false });
        self.newest = Some(self.sets.len() - 1);
        self.set_revision(Some(revision.to_string()));
        if progress::deadline(self.deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            self.note_progress("NewReplicaSetCreated", &message);
        }
    }

    /// Whether the set's size changes.
    fn scale(&mut self, at: usize, number: i32) -> bool {
        let old = self.size(at);
        if old == number {
            return false;
        }
        let work = &mut self.sets[at];
        if let Some(spec) = &mut work.set.spec {
            spec.replicas = Some(number);
        }
        sets::annotate_scale(self.deployment, &mut work.set);
        // A set that is scaled twice in a pass is written once: the event tells the whole way.
        let from = work.before.as_ref().map_or(0, |before| size(before));
        let direction = if from < number { "up" } else { "down" };
        let name = work.set.name();
        work.event = Some(format!("Scaled {direction} replica set {name} from {from} to {number}"));
        true
    }

    /// Whether `spec.replicas` is not what the sets were last scaled for.
    fn is_rescaled(&self) -> bool {
        let active = self.sets.iter().filter(|work| size(&work.set) > 0);
        let desired = active.filter_map(|it| sets::annotated_number(&it.set, DESIRED_REPLICAS));
        desired.into_iter().any(|desired| desired != replicas(self.deployment))
    }

    /// Follows a change of `spec.replicas`, all sets in proportion.
    fn rescale(&mut self) {
        let wanted = replicas(self.deployment);
        if let Some(at) = self.only_active_or_latest() {
            self.scale(at, wanted);
            return;
        }
        if self.is_saturated() {
            for at in self.active_old() {
                self.scale(at, 0);
            }
            return;
        }
        if !scale::is_rolling(self.deployment) {
            return;
        }
        let allowed = if wanted > 0 { wanted + scale::max_surge(self.deployment) } else { 0 };
        let to_add = allowed - self.total();
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|at| self.size(*at) > 0).collect();
        // Largest first; of equals the newer when growing, the older when shrinking.
        let age = |at: &usize| if to_add > 0 { usize::MAX - *at } else { *at };
        active.sort_by_key(|at| (-self.size(*at), age(at)));
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for at in &active {
            let share = scale::proportion(self.deployment, &self.sets[*at].set, to_add, added);
            added += share;
            sizes.push(self.size(*at) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (at, number) in active.into_iter().zip(sizes) {
            self.scale(at, number);
            sets::annotate_scale(self.deployment, &mut self.sets[at].set);
        }
    }

    /// The one active set, or the latest where none is active.
    fn only_active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.sets.len()).filter(|at| self.size(*at) > 0).collect();
        match active.as_slice() {
            [] => self.newest.or_else(|| self.sets.len().checked_sub(1)),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn is_saturated(&self) -> bool {
        let wanted = replicas(self.deployment);
        self.newest.is_some_and(|at| {
            let set = &self.sets[at].set;
            size(set) == wanted
                && sets::annotated_number(set, DESIRED_REPLICAS) == Some(wanted)
                && available(set) == wanted
        })
    }

    fn roll(&mut self) {
        self.make_newest();
        let Some(newest) = self.newest else { return };
        if !self.grow_newest(newest) && !self.shrink_old(newest) {
            self.clean_up_if_complete();
        }
    }

    fn grow_newest(&mut self, newest: usize) -> bool {
        let (present, wanted) = (self.size(newest), replicas(self.deployment));
        if present >= wanted {
            return self.scale(newest, wanted);
        }
        let number = scale::newest_size(self.deployment, self.total(), present);
        self.scale(newest, number)
    }

    /// Takes old pods away: those that serve nobody first, then as many as may lack.
    fn shrink_old(&mut self, newest: usize) -> bool {
        let old = self.active_old();
        if old.is_empty() {
            return false;
        }
        let floor = replicas(self.deployment) - scale::max_unavailable(self.deployment);
        let unavailable_new = self.size(newest) - available(&self.sets[newest].set);
        let allowance = self.total() - floor - unavailable_new;
        if allowance <= 0 {
            return false;
        }
        let mut unhealthy = allowance;
        let mut scaled = false;
        for at in &old {
            let lame = self.size(*at) - available(&self.sets[*at].set);
            let number = lame.min(unhealthy).max(0);
            unhealthy -= number;
            scaled |= self.scale(*at, self.size(*at) - number);
        }
        let standing: i32 = self.sets.iter().map(|work| available(&work.set)).sum();
        let mut surplus = (standing - floor).max(0);
        for at in old {
            let number = self.size(at).min(surplus);
            surplus -= number;
            scaled |= self.scale(at, self.size(at) - number);
        }
        scaled
    }

    fn recreate(&mut self, old_pods_run: bool) {
        let active = self.active_old();
        if !active.is_empty() {
            for at in active {
                self.scale(at, 0);
            }
            return;
        }
        let counted = self
            .old()
            .into_iter()
            .any(|at| self.sets[at].set.status.as_ref().is_some_and(|status| status.replicas > 0));
        if counted || old_pods_run {
            return;
        }
        self.make_newest();
        if let Some(newest) = self.newest {
            self.scale(newest, replicas(self.deployment));
        }
        self.clean_up_if_complete();
    }

    fn clean_up_if_complete(&mut self) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if progress::is_complete(self.deployment, &status) {
            self.clean_up();
        }
    }

    /// Deletes the oldest empty sets beyond the history's limit.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|it| it.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut old = self.old();
        old.retain(|at| !self.sets[*at].set.is_deleting());
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|at| sets::revision(&self.sets[*at].set));
        for at in old.into_iter().take(surplus) {
            let set = &self.sets[at].set;
            let status = set.status.clone().unwrap_or_default();
            let behind = set.metadata.generation > status.observed_generation;
            if status.replicas == 0 && size(set) == 0 && !behind {
                self.sets[at].delete = true;
            }
        }
    }

    fn finish(self, rolls: bool) -> Plan {
        let all: Vec<&ReplicaSet> = self.sets.iter().map(|work| &work.set).collect();
        let newest = self.newest.map(|at| all[at]);
        let status = match rolls {
            true => progress::rollout_status(self.deployment, &self.status, &all, newest, self.now),
            false => progress::count(self.deployment, &self.status, &all, newest, self.now),
        };
        let again = progress::next_check(self.deployment, &status, self.now);
        let changed = self.deployment.status.as_ref() != Some(&status);
        let steps = self.sets.into_iter().filter_map(Work::into_step).collect();
        Plan { steps, revision: self.revision, status: changed.then_some(status), again }
    }
}

impl Work {
    fn into_step(self) -> Option<Step> {
        let change = match &self.before {
            None => Change::create(&self.set),
            Some(_) if self.delete => Change::delete(&self.set),
            Some(before) if **before != self.set => Change::update(&self.set),
            Some(_) => return None,
        };
        Some(Step { change, event: self.event })
    }
}
