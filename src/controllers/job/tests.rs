//! The plan, step by step: each test is a moment of a Job.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{find, plan};
use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({"completions": 3, "parallelism": 2, "backoffLimit": 2,
        "completionMode": "NonIndexed", "template": {"metadata": {"labels": {"job": "j"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let metadata = json!({"name": "j", "namespace": "ns", "uid": "j"});
    serde_json::from_value(json!({"metadata": metadata, "spec": whole, "status": status})).unwrap()
}

/// A pod that finished, or was made, at a minute of the hour before `now`.
fn pod(name: &str, phase: &str, minute: u32, index: Option<i32>) -> Arc<Pod> {
    let at = format!("2026-01-01T00:{minute:02}:00Z");
    let annotations = index.map(|index| json!({index::INDEX: index.to_string()}));
    let state = match phase {
        "Succeeded" | "Failed" => json!({"terminated": {"exitCode": 1, "finishedAt": at}}),
        _ => json!({"running": {}}),
    };
    let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name,
        "annotations": annotations, "finalizers": [FINALIZER], "creationTimestamp": at},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "state": state}]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn released(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    pod.metadata.finalizers = None;
    Arc::new(pod)
}

fn next(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    plan(job, job.spec.as_ref().unwrap(), pods, now())
}

fn with_status(job: &Job, plan: Plan) -> Job {
    Job { status: Some(plan.status), ..job.clone() }
}

fn reasons(status: &k8s_openapi::api::batch::v1::JobStatus) -> Vec<(&str, &str)> {
    let conditions = status.conditions.iter().flatten();
    conditions.map(|it| (it.type_.as_str(), it.reason.as_deref().unwrap())).collect()
}

#[test]
fn a_pod_is_counted_after_its_finalizer_is_gone() {
    let new = job(json!({}), json!({}));
    let first = next(&new, &[]);
    assert_eq!(first.create.len(), 2);
    assert_eq!(first.status.active, Some(2));
    assert!(first.status.start_time.is_some());
    let done = pod("a", "Succeeded", 50, None);
    let running = pod("b", "Running", 50, None);
    let second = next(&with_status(&new, first), &[done.clone(), running.clone()]);
    assert_eq!(second.create.len(), 1);
    assert_eq!(second.release, std::slice::from_ref(&done));
    let uncounted = second.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!(second.status.succeeded, None);
    let third = next(&with_status(&new, second), &[released(&done), running]);
    assert_eq!(third.status.succeeded, Some(1));
    assert_eq!(third.status.uncounted_terminated_pods, Some(Default::default()));
}

#[test]
fn completion_is_told_first_and_then_enacted() {
    let pods: Vec<_> =
        ["a", "b", "c"].iter().map(|name| pod(name, "Succeeded", 50, None)).collect();
    let new = job(json!({}), json!({}));
    let first = next(&new, &pods);
    assert_eq!(reasons(&first.status), [("SuccessCriteriaMet", "CompletionsReached")]);
    assert!(first.events.is_empty());
    let gone: Vec<_> = pods.iter().map(released).collect();
    let last = next(&with_status(&new, first), &gone);
    assert!(find(&last.status, "Complete").is_some());
    assert_eq!(last.status.succeeded, Some(3));
    assert_eq!(last.status.completion_time, Some(now().into()));
    assert_eq!(last.events[0].1, "Completed");
}

#[test]
fn failures_wait_longer_each_time_until_the_limit() {
    let failed = |minute| pod(&format!("f{minute}"), "Failed", minute, None);
    let new = job(json!({"parallelism": 1}), json!({}));
    // The back-off after one failure is 10 s, and the pod failed a minute ago.
    assert_eq!(next(&new, &[failed(59)]).create.len(), 1);
    let mut recent = (*failed(59)).clone();
    let state = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:55Z"}});
    recent.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].state =
        serde_json::from_value(state).unwrap();
    let waiting = next(&new, &[failed(58), Arc::new(recent)]);
    assert!(waiting.create.is_empty());
    assert_eq!(waiting.again.unwrap().as_secs(), 15);
    let running = pod("r", "Running", 59, None);
    let over = next(&new, &[failed(56), failed(57), failed(58), running.clone()]);
    assert_eq!(reasons(&over.status), [("FailureTarget", "BackoffLimitExceeded")]);
    assert_eq!(over.delete, [running]);
    assert!(!over.uncounted_delete);
    assert_eq!(over.release.len(), 4);
    let status = with_status(&new, over);
    let pods: Vec<_> = [56, 57, 58].map(|minute| released(&failed(minute))).to_vec();
    let last = next(&status, &pods);
    assert!(find(&last.status, "Failed").is_some());
    assert_eq!(last.status.failed, Some(4));
    let (kind, reason, message) = &last.events[0];
    assert_eq!((*kind, reason.as_str()), (EventType::Warning, "BackoffLimitExceeded"));
    assert_eq!(message, "Job has reached the specified backoff limit");
}

#[test]
fn indexes_are_tried_apart_and_their_failures_told_on() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "backoffLimit": null, "backoffLimitPerIndex": 1});
    let new = job(spec, json!({}));
    let first = next(&new, &[]);
    let names: Vec<_> =
        first.create.iter().map(|pod| pod.metadata.generate_name.clone().unwrap()).collect();
    assert_eq!(names, ["j-0-", "j-1-", "j-2-", "j-3-"]);
    assert_eq!(first.create[2].spec.as_ref().unwrap().hostname.as_deref(), Some("j-2"));
    let pods = [
        pod("a", "Succeeded", 50, Some(0)),
        pod("b", "Failed", 50, Some(1)),
        pod("c", "Running", 50, Some(2)),
        pod("d", "Succeeded", 50, Some(3)),
    ];
    let second = next(&new, &pods);
    assert_eq!(second.status.completed_indexes.as_deref(), Some("0,3"));
    assert_eq!(second.create.len(), 1);
    let heir = second.create[0].clone();
    assert_eq!(heir.annotation("batch.kubernetes.io/job-index-failure-count"), Some("1"));
    assert!(!second.release.contains(&pods[1]), "it stays until its heir is there");
    let mut again = heir;
    again.metadata.name = Some("e".to_owned());
    again.metadata.uid = Some("e".to_owned());
    again.status = pod("x", "Failed", 55, None).status.clone();
    let mut pods = pods.to_vec();
    pods.push(Arc::new(again));
    let third = next(&new, &pods);
    assert_eq!(third.status.failed_indexes.as_deref(), Some("1"));
    assert!(third.create.is_empty());
    pods[2] = pod("c", "Succeeded", 58, Some(2));
    let last = next(&new, &pods);
    assert_eq!(reasons(&last.status), [("FailureTarget", "FailedIndexes")]);
}

#[test]
fn suspension_takes_pods_away_and_resuming_starts_the_clock() {
    let running = pod("r", "Running", 50, None);
    let paused = job(json!({"suspend": true, "activeDeadlineSeconds": 60}), json!({}));
    let first = next(&paused, std::slice::from_ref(&running));
    assert_eq!(first.delete, [running]);
    assert!(first.uncounted_delete);
    assert_eq!(first.events[0].1, "Suspended");
    assert_eq!(first.status.start_time, None);
    let mut resumed = with_status(&paused, first);
    resumed.spec.as_mut().unwrap().suspend = Some(false);
    let second = next(&resumed, &[]);
    assert_eq!(second.events[0].1, "Resumed");
    assert_eq!(second.status.start_time, Some(now().into()));
    assert_eq!(second.again.unwrap().as_secs(), 60);
    assert_eq!(second.create.len(), 2);
    let late = plan(
        &with_status(&resumed, second),
        resumed.spec.as_ref().unwrap(),
        &[],
        now() + std::time::Duration::from_secs(60),
    );
    assert_eq!(reasons(&late.status).last(), Some(&("Failed", "DeadlineExceeded")));
}
