//! Eviction: a delete of a pod that asks its disruption budget first.
//!
//! Why the budget is written before the pod goes: two evictions at once must not both spend the
//! last disruption that it allows.

use serde_json::json;

use super::binding::set_condition;
use crate::api::admission::Operation;
use crate::api::context::Attributes;
use crate::api::data;
use crate::api::handlers::admit::Admission;
use crate::api::handlers::{delete, get, write};
use crate::api::query::Query;
use crate::api::server::Call;
use crate::api::storage;
use crate::client::DeleteOptions;
use crate::object::selector::Selector;
use crate::object::status::{Cause, Result, Status};
use crate::object::{Gvr, Value, meta, time};
use crate::store::KeyRange;

/// Pods that a budget may remember as evicted and not yet gone (upstream's `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
/// What a client that was refused is told to wait, in seconds.
const RETRY_AFTER_SECONDS: u32 = 10;

/// Evicts the pod that `call` names.
pub async fn evict(call: &Call, body: &Value, dry_run: bool) -> Result<Status> {
    let name = call.attributes.name.as_str();
    if meta::name(body) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Query::default().delete(body.get("deleteOptions"))?;
    options.dry_run |= dry_run;
    let mut admission = Admission::new(call, Operation::Create, name, None, options.dry_run);
    let object = admission.mutate(body.clone()).await?;
    admission.validate(object).await?;
    let pod = data::decode(&get::get(call, "").await?)?;
    let mut pinned = false;
    if !ignores_budgets(&pod) {
        match budgets_of(call, &pod)?.as_slice() {
            [] => {}
            [budget] if spares_unhealthy(budget, &pod) => pinned = true,
            [budget] => spend(call, budget, name, options.dry_run).await?,
            _ => {
                let text = "This pod has more than one PodDisruptionBudget, which the eviction \
                            subresource does not support.";
                return Err(Status::failure(500, "", text));
            }
        }
    } else if meta::text(&pod, &["status", "phase"]) == "Pending" && !meta::is_deleting(&pod) {
        pinned = true;
    }
    if pinned && options.resource_version.is_none() {
        options.resource_version = Some(meta::resource_version(&pod).to_owned());
    }
    remove(call, name, options).await?;
    Ok(Status { status: "Success".to_owned(), code: 201, ..Status::default() })
}

async fn remove(call: &Call, name: &str, mut options: DeleteOptions) -> Result<()> {
    if !options.dry_run {
        let now = call.api.clock.now();
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
        let wanted = options.resource_version.clone();
        let marked = write::rewrite(call, name, false, &|pod| {
            if wanted.as_deref().is_some_and(|want| want != meta::resource_version(pod)) {
                return Err(too_many(name));
            }
            set_condition(pod, condition.clone(), now);
            Ok(())
        })
        .await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(meta::resource_version(&marked).to_owned());
        }
    }
    delete::delete(call, &options).await.map(drop)
}

fn ignores_budgets(pod: &Value) -> bool {
    let phase = meta::text(pod, &["status", "phase"]);
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_deleting(pod)
}

fn budgets_of(call: &Call, pod: &Value) -> Result<Vec<Value>> {
    let at = storage::namespace_prefix("poddisruptionbudgets", "policy", meta::namespace(pod));
    let range = KeyRange::prefix(at);
    let mut found = Vec::new();
    for entry in call.api.data.cached().range(&range, None) {
        let budget = data::decode(&entry.value)?;
        let selector = meta::at(&budget, &["spec", "selector"]).unwrap_or(&Value::Null);
        let selector = Selector::from_label_selector(selector).map_err(Status::internal)?;
        if selector.matches(meta::labels(pod)) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// An unready pod may go without spending when the rest is healthy, or when the budget says so.
fn spares_unhealthy(budget: &Value, pod: &Value) -> bool {
    let conditions = meta::at(pod, &["status", "conditions"]).and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == "Ready" && one["status"] == "True");
    if ready {
        return false;
    }
    let number = |field| meta::at(budget, &["status", field]).and_then(Value::as_i64).unwrap_or(0);
    let desired = number("desiredHealthy");
    meta::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
        || (number("currentHealthy") >= desired && desired > 0)
}

/// Takes one disruption from the budget, or says 429.
async fn spend(call: &Call, budget: &Value, pod: &str, dry_run: bool) -> Result<()> {
    let gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
    let kind = call.api.registry.load().resource(&gvr).cloned();
    let name = meta::name(budget).to_owned();
    let budgets = Call {
        api: call.api.clone(),
        kind: kind.ok_or_else(Status::no_such_path)?,
        attributes: Attributes {
            gvr: Some(gvr),
            name: name.clone(),
            subresource: "status".to_owned(),
            ..call.attributes.clone()
        },
        request: call.request.clone(),
        warnings: parking_lot::Mutex::default(),
    };
    let now = time::seconds(call.api.clock.now());
    write::rewrite(&budgets, &name, dry_run, &|budget| take_one(budget, pod, &now)).await?;
    Ok(())
}

fn take_one(budget: &mut Value, pod: &str, now: &str) -> Result<()> {
    let name = meta::name(budget).to_owned();
    let number = |path: &[&str]| meta::at(budget, path).and_then(Value::as_i64).unwrap_or(0);
    let allowed = number(&["status", "disruptionsAllowed"]);
    if number(&["status", "observedGeneration"]) < meta::generation(budget) {
        return Err(too_many(&name));
    }
    let refused = |why: String| {
        let mut status = Status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            0,
        );
        let cause =
            Cause { reason: "DisruptionBudget".to_owned(), message: why, ..Cause::default() };
        status.details.get_or_insert_with(Box::default).causes.push(cause);
        status
    };
    let disrupted = meta::at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(refused(why.to_owned()));
    }
    if allowed <= 0 {
        return Err(refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number(&["status", "desiredHealthy"]),
            number(&["status", "currentHealthy"])
        )));
    }
    meta::set(budget, &["status", "disruptionsAllowed"], allowed - 1);
    meta::set(budget, &["status", "disruptedPods", pod], now);
    Ok(())
}

fn too_many(budget: &str) -> Status {
    let mut status = Status::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        RETRY_AFTER_SECONDS,
    );
    let message = format!("The disruption budget {budget} is still being processed by the server.");
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message, ..Cause::default() };
    status.details.get_or_insert_with(Box::default).causes.push(cause);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_until_nothing_is_left() {
        let mut budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {
            "observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2,
            "currentHealthy": 3}});
        take_one(&mut budget, "p", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "2026-01-01T00:00:00Z"}));
        let refused = take_one(&mut budget, "q", "x").unwrap_err();
        assert_eq!(refused.code, 429);
        let cause = &refused.details.unwrap().causes[0];
        assert_eq!(
            cause.message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
        budget["metadata"]["generation"] = json!(2);
        assert_eq!(
            take_one(&mut budget, "q", "x").unwrap_err().details.unwrap().retry_after_seconds,
            10
        );
    }
}
