//! Deployments: replaces pods of an old template by those of a new one, at a bounded pace.
//!
//! Why a plan apart: what to do is a pure function of the Deployment, its ReplicaSets and the time
//! (`plan.rs`, with the arithmetic in `scale.rs` and the status in `progress.rs`); this file only
//! gathers and writes.

mod plan;
mod progress;
mod scale;
mod sets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::claim::{claim, selector_of};
use super::pods;
use crate::object::Status;
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Notice, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, EventType, Object, ObjectKey};
use crate::stdx::clock::SharedClock;
use plan::{Plan, Step};

/// The controller.
pub struct Deployments {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    clock: SharedClock,
}

impl Deployments {
    /// Over shared informers.
    pub fn new(informers: &Informers, clock: SharedClock) -> Self {
        let (deployments, sets, pods) = (informers.of(), informers.of(), informers.of());
        Self { deployments, sets, pods, clock }
    }

    /// Whether a pod of another template than the newest still runs; only Recreate asks.
    fn old_pods_run(&self, sets: &[Arc<ReplicaSet>], newest: Option<&str>) -> bool {
        let old = sets.iter().map(|set| set.uid()).filter(|uid| Some(*uid) != newest);
        old.flat_map(|uid| self.pods.owned_by(uid)).any(|pod| !pods::is_terminal(&pod))
    }

    async fn carry_out(&self, pass: &Pass, deployment: &Deployment, plan: Plan) -> Result<()> {
        for step in plan.steps {
            let Step { change, event } = step;
            let creates = match &change {
                Change::Create { object, .. } => Some(object.clone()),
                _ => None,
            };
            match (pass.apply(change).await, creates) {
                (Ok(_), _) => {}
                (Err(status), Some(set)) => {
                    return self.create_failed(pass, deployment, &set, status).await;
                }
                (Err(status), None) => return Err(status),
            }
            if let Some(message) = event {
                pass.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
            }
        }
        let mut changed = deployment.clone();
        if let Some(revision) = plan.revision {
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.insert(sets::REVISION.to_owned(), revision);
            let written = pass.apply(Change::update(&changed)).await?;
            changed = Deployment::from_value(written).map_err(Status::internal)?;
        }
        if let Some(status) = plan.status {
            changed.status = Some(status);
            pass.apply(Change::update_status(&changed)).await?;
        }
        Ok(())
    }

    /// A name that is taken by a set with another template gets another hash next time; any other
    /// refusal is shown as a condition.
    async fn create_failed(
        &self,
        pass: &Pass,
        deployment: &Deployment,
        set: &crate::object::Value,
        status: Status,
    ) -> Result<()> {
        let mut changed = deployment.clone();
        let now = self.clock.now();
        if status.is_already_exists() {
            let set: ReplicaSet = serde_json::from_value(set.clone()).map_err(Status::internal)?;
            let standing = pass.client().get(&set.target()).await?;
            let standing = ReplicaSet::from_value(standing).map_err(Status::internal)?;
            let ours = standing.controller().is_some_and(|owner| owner.uid == deployment.uid());
            if !(ours && sets::is_of_template(&standing, deployment)) {
                let inner = changed.status.get_or_insert_default();
                inner.collision_count = Some(inner.collision_count.unwrap_or(0) + 1);
                pass.apply(Change::update_status(&changed)).await?;
            }
            return Err(status);
        }
        if pods::namespace_is_ending(&status) {
            return Ok(());
        }
        let name = crate::object::meta::name(set);
        let message = format!("Failed to create new replica set {name:?}: {status}");
        if progress::deadline(deployment).is_some() {
            let inner = changed.status.get_or_insert_default();
            let reason = "ReplicaSetCreateError";
            let condition = progress::condition("Progressing", "False", reason, &message, now);
            progress::set_condition(&mut inner.conditions, condition);
            pass.apply(Change::update_status(&changed)).await?;
        }
        pass.event(deployment, EventType::Warning, "ReplicaSetCreateError", message);
        Err(status)
    }

    /// The Deployments that a ReplicaSet concerns: its owner, or for an orphan all that match.
    fn concerned(deployments: &Informer<Deployment>, set: &ReplicaSet) -> Vec<ObjectKey> {
        match set.controller() {
            Some(owner) if owner.kind == "Deployment" => {
                vec![ObjectKey::new(set.namespace(), owner.name.as_str())]
            }
            Some(_) => Vec::new(),
            None => deployments
                .list(set.namespace())
                .iter()
                .filter(|deployment| {
                    let selector = deployment.spec.as_ref().map(|spec| selector_of(&spec.selector));
                    selector.is_some_and(|it| it.matches_labels(set.metadata.labels.as_ref()))
                })
                .map(|deployment| deployment.key())
                .collect(),
        }
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![
            Arc::new(self.deployments.clone()),
            Arc::new(self.sets.clone()),
            Arc::new(self.pods.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.deployments.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let own = queue.clone();
        let deployments = self.deployments.subscribe(move |notice| {
            own.add(notice.newest().map(|it| it.key()).unwrap_or_default());
        });
        let (all, of_sets) = (self.deployments.clone(), queue.clone());
        let sets = self.sets.subscribe(move |notice: Notice<'_, ReplicaSet>| {
            for key in notice.both().flat_map(|set| Self::concerned(&all, set)) {
                of_sets.add(key);
            }
        });
        // Recreate goes on when the last old pod has ended.
        let (all, sets_of_pods, queue) =
            (self.deployments.clone(), self.sets.clone(), queue.clone());
        let pods = self.pods.subscribe(move |notice| {
            let ended = notice.new.is_none_or(|pod| pods::is_terminal(pod));
            let pod = notice.newest().filter(|_| ended);
            let owner = pod.and_then(|pod| {
                let owner = pod.controller().filter(|owner| owner.kind == "ReplicaSet")?;
                sets_of_pods.get(pod.namespace(), &owner.name)
            });
            for key in owner.iter().flat_map(|set| Self::concerned(&all, set)) {
                if all.at(&key).is_some_and(|deployment| is_recreate(&deployment)) {
                    queue.add(key);
                }
            }
        });
        vec![deployments, sets, pods]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let Some(deployment) = self.deployments.at(key) else { return Ok(Action::Await) };
        let Some(spec) = &deployment.spec else { return Ok(Action::Await) };
        if spec.selector == LabelSelector::default() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            pass.event(&*deployment, EventType::Warning, "SelectingAll", text.to_owned());
            return Ok(Action::Await);
        }
        let candidates = self.sets.list(&key.namespace);
        let selector = selector_of(&spec.selector);
        let owned = claim(pass, &*deployment, &selector, candidates, None).await?;
        let newest = sets::newest(&deployment, &owned).map(|set| set.uid().to_owned());
        let old_pods_run = is_recreate(&deployment) && self.old_pods_run(&owned, newest.as_deref());
        let plan = plan::plan(&deployment, &owned, old_pods_run, self.clock.now());
        let again = plan.again;
        self.carry_out(pass, &deployment, plan).await?;
        Ok(again.map_or(Action::Await, Action::After))
    }
}
