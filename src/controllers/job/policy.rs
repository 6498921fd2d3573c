//! What a failed pod means for its Job, and when enough indexes have succeeded.
//!
//! Why apart: both are the user's rules over pods, in order, the first match counts.

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::index::Indexes;
use crate::reconcile::Object;

/// What a failure policy makes of a failed pod.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not.
    Ignore,
    /// Its index fails at once.
    FailIndex,
    /// The whole Job fails, with this message.
    FailJob(String),
}

impl Verdict {
    /// Whether the failure is counted.
    pub fn counts(&self) -> bool {
        *self != Self::Ignore
    }
}

/// Judges a failed pod by the Job's policy; without one each failure counts.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    policy.map_or(Verdict::Count, |policy| judge_by(policy, pod))
}

fn judge_by(policy: &PodFailurePolicy, pod: &Pod) -> Verdict {
    for (at, rule) in policy.rules.iter().enumerate() {
        let what = if let Some(codes) = &rule.on_exit_codes {
            matching_container(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", pod.key())
            })
        } else {
            let patterns = rule.on_pod_conditions.iter().flatten();
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let mut met = conditions.into_iter().flatten().filter(|condition| {
                patterns.clone().any(|pattern| {
                    let status = pattern.status.as_deref().unwrap_or("True");
                    pattern.type_ == condition.type_ && status == condition.status
                })
            });
            met.next().map(|met| format!("Pod {} has condition {}", pod.key(), met.type_))
        };
        let Some(what) = what else { continue };
        let action = rule.action.as_str();
        return match action {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{what} matching {action} rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matching_container(
    pod: &Pod,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let matches = |container: &ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = wanted.values.contains(&code);
        let holds = match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (code != 0 && named && holds).then(|| (container.name.clone(), code))
    };
    let regular = status.container_statuses.iter().flatten();
    let mut all = regular.chain(status.init_container_statuses.iter().flatten());
    all.find_map(matches)
}

/// The message of the first success rule that the succeeded indexes meet.
pub fn success(job: &Job, succeeded: &Indexes) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let policy = spec.success_policy.as_ref()?;
    let completions = spec.completions.unwrap_or(0);
    if succeeded.len() == 0 {
        return None;
    }
    let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let common = required.common(succeeded);
            let all = required.len();
            all > 0 && (common == all || rule.succeeded_count.is_some_and(|count| common >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    });
    met.map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value) -> Job {
        let mut whole = json!({"template": {"spec": {"containers": []}}, "completions": 10});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": whole})).unwrap()
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let job = job(json!({"podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}}]}}));
        let pod = |code: i32, disrupted: bool| -> Pod {
            let conditions = json!([{"type": "DisruptionTarget",
                "status": if disrupted { "True" } else { "False" }}]);
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"},
                "status": {"phase": "Failed", "conditions": conditions, "containerStatuses": [
                    {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        let text = "Container c for pod ns/p failed with exit code 42 matching FailJob rule at \
                    index 0";
        assert_eq!(judge(&job, &pod(42, true)), Verdict::FailJob(text.to_owned()));
        assert_eq!(judge(&job, &pod(7, true)), Verdict::Ignore);
        assert_eq!(judge(&job, &pod(7, false)), Verdict::FailIndex);
        assert_eq!(judge(&job, &pod(1, false)), Verdict::Count);
    }

    #[test]
    fn success_rules_name_indexes_or_numbers() {
        let job = job(json!({"successPolicy": {"rules": [
            {"succeededIndexes": "0-2", "succeededCount": 2}, {"succeededCount": 5}]}}));
        let met = |text: &str| success(&job, &Indexes::parse(text, 10));
        assert_eq!(met("0,5-7"), None);
        assert_eq!(met("0,2").as_deref(), Some("Matched rules at index 0"));
        assert_eq!(met("3-7").as_deref(), Some("Matched rules at index 1"));
    }
}
