//! The arithmetic of surge, unavailability and proportional scaling.
//!
//! Why apart: these few rules decide whether a rollout keeps its promises, so they stand alone with
//! nothing but numbers (upstream's `deployment_util.go`).

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::sets::{self, MAX_REPLICAS, size};

/// `spec.replicas`.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// A number, or a part of `total`; what is no such thing counts as 0 (validation keeps it out).
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
            let hundredfold = percent.unwrap_or(0).saturating_mul(i64::from(total));
            let up = i64::from(round_up && hundredfold % 100 != 0);
            i32::try_from(hundredfold / 100 + up).unwrap_or(i32::MAX)
        }
        None => 0,
    }
}

fn rolling(deployment: &Deployment) -> Option<RollingUpdateDeployment> {
    let quarter = || Some(IntOrString::String("25%".to_owned()));
    let strategy = deployment.spec.as_ref()?.strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref().unwrap_or("RollingUpdate") != "RollingUpdate" {
        return None;
    }
    let given = strategy.rolling_update.unwrap_or_default();
    Some(RollingUpdateDeployment {
        max_surge: given.max_surge.or_else(quarter),
        max_unavailable: given.max_unavailable.or_else(quarter),
    })
}

/// Whether the strategy is RollingUpdate.
pub fn is_rolling(deployment: &Deployment) -> bool {
    rolling(deployment).is_some()
}

/// Pods there may be beyond `spec.replicas`.
pub fn max_surge(deployment: &Deployment) -> i32 {
    let Some(rolling) = rolling(deployment) else { return 0 };
    scaled(rolling.max_surge.as_ref(), replicas(deployment), true)
}

/// Pods that may lack.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let (Some(rolling), replicas) = (rolling(deployment), replicas(deployment)) else { return 0 };
    if replicas == 0 {
        return 0;
    }
    let surge = scaled(rolling.max_surge.as_ref(), replicas, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, false);
    // Both may round to nothing; then nothing could ever move.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    unavailable.min(replicas)
}

/// The size that the newest set may grow to; `total` is the size of all sets, its own included.
pub fn newest_size(deployment: &Deployment, total: i32, present: i32) -> i32 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let most = wanted + max_surge(deployment);
    if total >= most {
        return present;
    }
    present + (most - total).min(wanted - present)
}

/// How much of a change of the whole Deployment's size falls to one set.
pub fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, allowed) = (share(deployment, set), to_add - added);
    if to_add > 0 { share.min(allowed) } else { share.max(allowed) }
}

fn share(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let wanted = replicas(deployment);
    if wanted == 0 {
        return -size(set);
    }
    let now = f64::from(wanted + max_surge(deployment));
    let annotated = sets::annotated_number(set, MAX_REPLICAS).filter(|number| *number != 0);
    let status = deployment.status.as_ref().and_then(|status| status.replicas);
    let Some(before) = annotated.or(status).filter(|number| *number != 0) else { return 0 };
    let size = size(set);
    #[allow(clippy::cast_possible_truncation)] // rounded, and no larger than an i32's product
    let new = (f64::from(size) * now / f64::from(before)).round() as i32;
    new - size
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_lack() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(scaled(Some(&quarter), 10, true), 3);
        assert_eq!(scaled(Some(&quarter), 10, false), 2);
        assert_eq!(scaled(Some(&IntOrString::Int(4)), 10, true), 4);
    }

    #[test]
    fn something_may_always_move() {
        let deployment = |surge: &str, lack: &str, replicas: i32| -> Deployment {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": lack});
            let spec = json!({"replicas": replicas, "selector": {}, "template": {},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        assert_eq!(max_unavailable(&deployment("0%", "10%", 3)), 1);
        assert_eq!(max_unavailable(&deployment("0%", "500%", 3)), 3);
        let ten = deployment("25%", "25%", 10);
        assert_eq!(newest_size(&ten, 10, 0), 3);
        assert_eq!(newest_size(&ten, 13, 3), 3);
        assert_eq!(newest_size(&ten, 11, 9), 10);
    }
}
