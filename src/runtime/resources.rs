//! Requests and limits become cgroup figures; also the quality-of-service class they imply.
//!
//! Why the same arithmetic as upstream: people size nodes by it, and conformance reads the figures
//! back from inside the container.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::Machine;
use super::engine::Resources;
use super::pods::{Model, Unit};
use crate::object::quantity::Quantity;

/// The period of CPU quotas in microseconds.
const CPU_PERIOD: i64 = 100_000;
/// The smallest quota that the kernel takes.
const CPU_QUOTA_MIN: i64 = 1_000;
/// The weight of no request at all, and the smallest the kernel takes.
const CPU_SHARES_MIN: i64 = 2;
/// The largest weight the kernel takes.
const CPU_SHARES_MAX: i64 = 262_144;
/// The kernel ends containers of guaranteed pods last.
const GUARANTEED_OOM_SCORE: i64 = -997;
/// And those without any request first.
const BEST_EFFORT_OOM_SCORE: i64 = 1000;
/// The priority from which on a pod is critical to its node.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// A quantity of a list, if it is there and readable (the API server stores no other).
pub fn quantity(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Option<Quantity> {
    Quantity::parse(&list?.get(name)?.0).ok()
}

/// A pod's quality-of-service class.
pub fn qos(model: &Model) -> &'static str {
    if let Some(known) = model.pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        return match known {
            "Guaranteed" => "Guaranteed",
            "BestEffort" => "BestEffort",
            _ => "Burstable",
        };
    }
    let (mut any, mut all) = (false, true);
    for unit in model.units.iter().filter(|unit| unit.kind != super::pods::Kind::Ephemeral) {
        let resources = unit.spec.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for name in ["cpu", "memory"] {
            let limit = quantity(limits, name).filter(|limit| !limit.is_zero());
            let request = quantity(requests, name).filter(|request| !request.is_zero());
            any |= limit.is_some() || request.is_some();
            let same = |limit: Quantity| {
                request.is_none_or(|request| request.plus(&Quantity::ZERO).minus(&limit).is_zero())
            };
            all &= limit.is_some_and(same);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn shares(millis: i64) -> i64 {
    (millis * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// The cgroup figures of a container on this machine.
pub fn of(model: &Model, unit: &Unit, machine: &Machine) -> Resources {
    let resources = unit.spec.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let cpu_limit = quantity(limits, "cpu").map_or(0, |limit| limit.millis());
    // A limit alone is a request, too.
    let cpu_request = quantity(requests, "cpu").map_or(cpu_limit, |request| request.millis());
    let cpu_quota = match cpu_limit {
        0 => 0,
        limit => (limit * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN),
    };
    Resources {
        cpu_shares: shares(cpu_request),
        cpu_quota,
        cpu_period: if cpu_quota == 0 { 0 } else { CPU_PERIOD },
        memory: quantity(limits, "memory").map_or(0, |limit| limit.units()),
        oom_score_adj: oom_score(model, unit, machine.memory).max(machine.oom_floor),
    }
}

fn oom_score(model: &Model, unit: &Unit, memory: i64) -> i64 {
    if model.spec().priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos(model) {
        "Guaranteed" => GUARANTEED_OOM_SCORE,
        "BestEffort" => BEST_EFFORT_OOM_SCORE,
        _ => {
            let requests =
                unit.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request = quantity(requests, "memory").map_or(0, |request| request.units());
            let score = 1000 - 1000 * i128::from(request) / i128::from(memory.max(1));
            i64::try_from(score).unwrap_or(0).clamp(1000 + GUARANTEED_OOM_SCORE, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::{Value, json};

    fn figures(resources: Value) -> Resources {
        let model = model(json!({"containers": [{"name": "a", "resources": resources}]}));
        let machine = Machine { memory: 1 << 30, oom_floor: -1000, ..Machine::default() };
        of(&model, &model.units[0], &machine)
    }

    #[test]
    fn limits_and_requests_become_upstreams_figures() {
        let burstable = figures(json!({"requests": {"cpu": "250m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"}}));
        assert_eq!(
            burstable,
            Resources {
                cpu_shares: 256,
                cpu_quota: 100_000,
                cpu_period: 100_000,
                memory: 512 << 20,
                oom_score_adj: 750,
            }
        );
        let nothing = figures(json!({}));
        assert_eq!((nothing.cpu_shares, nothing.oom_score_adj), (2, 1000));
        let both = json!({"cpu": "5m", "memory": "64Mi"});
        let guaranteed = figures(json!({"requests": both.clone(), "limits": both}));
        assert_eq!((guaranteed.cpu_quota, guaranteed.oom_score_adj), (1000, -997));
    }
}
