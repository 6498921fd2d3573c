//! The plan, step by step: each test is a moment of a rollout.

use serde_json::{Value, json};

use super::*;

fn now() -> jiff::Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn deployment(replicas: i32, image: &str, more: Value) -> Deployment {
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
        "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "d", "generation": 1});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A set as the API would hold it, of a Deployment's template.
fn set(of: &Deployment, size: i32, available: i32, revision: i64) -> Arc<ReplicaSet> {
    let mut set = sets::make(of, of.spec.as_ref().unwrap());
    sets::annotate_newest(of, &mut set, revision, true);
    set.metadata.uid = Some(format!("rs{revision}"));
    set.metadata.creation_timestamp =
        Some(format!("2026-01-01T00:00:{revision:02}Z").parse::<jiff::Timestamp>().unwrap().into());
    set.spec.as_mut().unwrap().replicas = Some(size);
    set.status = serde_json::from_value(json!({"replicas": size, "availableReplicas": available,
        "readyReplicas": available}))
    .unwrap();
    Arc::new(set)
}

fn events(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().filter_map(|step| step.event.as_deref()).collect()
}

fn shape(plan: &Plan) -> Vec<(&'static str, i64)> {
    let of = |step: &Step| match &step.change {
        Change::Create { object, .. } => ("create", object["spec"]["replicas"].as_i64().unwrap()),
        Change::Update { object, .. } => ("update", object["spec"]["replicas"].as_i64().unwrap()),
        Change::Delete { .. } => ("delete", 0),
        _ => ("other", 0),
    };
    plan.steps.iter().map(of).collect()
}

#[test]
fn a_new_deployment_gets_one_set_of_full_size() {
    let new = deployment(3, "one", json!({}));
    let plan = plan::plan(&new, &[], false, now());
    assert_eq!(shape(&plan), [("create", 3)]);
    let made = sets::make(&new, new.spec.as_ref().unwrap());
    let name = made.name();
    assert_eq!(events(&plan), [format!("Scaled up replica set {name} from 0 to 3")]);
    assert_eq!(plan.revision.as_deref(), Some("1"));
    let status = plan.status.unwrap();
    let progressing = progress::find(&status, "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("NewReplicaSetCreated"));
    let message = format!("Created new replica set {name:?}");
    assert_eq!(progressing.message.as_deref(), Some(message.as_str()));
    assert_eq!(progress::find(&status, "Available").unwrap().status, "False");
}

#[test]
fn a_rollout_surges_then_shrinks_and_a_bad_image_stops_it() {
    let old = deployment(10, "one", json!({}));
    let new = deployment(10, "two", json!({}));
    let first = set(&old, 10, 10, 1);
    let start = plan::plan(&new, std::slice::from_ref(&first), false, now());
    // Surge 3, and 2 may lack: the old set shrinks in the same pass.
    assert_eq!(shape(&start), [("update", 8), ("create", 3)]);
    assert_eq!(start.revision.as_deref(), Some("2"));
    let stuck = plan::plan(&new, &[set(&old, 8, 8, 1), set(&new, 5, 0, 2)], false, now());
    assert_eq!(shape(&stuck), []);
    let moving = plan::plan(&new, &[set(&old, 8, 8, 1), set(&new, 5, 3, 2)], false, now());
    assert_eq!(shape(&moving), [("update", 5)]);
}

#[test]
fn unhealthy_old_pods_go_first() {
    let old = deployment(10, "one", json!({}));
    let new = deployment(10, "two", json!({}));
    // Half of the old pods are broken; the two that may lack lack already.
    let plan = plan::plan(&new, &[set(&old, 10, 5, 1), set(&new, 3, 3, 2)], false, now());
    assert_eq!(shape(&plan), [("update", 5)]);
}

#[test]
fn a_rollback_takes_the_old_set_with_a_new_revision() {
    let one = deployment(2, "one", json!({}));
    let two = deployment(2, "two", json!({}));
    let sets = [set(&one, 0, 0, 1), set(&two, 2, 2, 2)];
    let plan = plan::plan(&one, &sets, false, now());
    assert_eq!(plan.revision.as_deref(), Some("3"));
    let Change::Update { object, .. } = &plan.steps[0].change else { panic!("{:?}", plan.steps) };
    let annotations = &object["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn scaling_during_a_rollout_is_proportional() {
    let old = deployment(10, "one", json!({}));
    let new = deployment(10, "two", json!({}));
    let sets = [set(&old, 8, 8, 1), set(&new, 5, 0, 2)];
    let mut larger = deployment(20, "two", json!({}));
    larger.status = None;
    let plan = plan::plan(&larger, &sets, false, now());
    // 25 in all, from 13: shares 8 and 5 of 13.
    assert_eq!(shape(&plan), [("update", 15), ("update", 10)]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let more = json!({"strategy": {"type": "Recreate"}});
    let old = deployment(3, "one", more.clone());
    let new = deployment(3, "two", more);
    let first = plan::plan(&new, &[set(&old, 3, 3, 1)], true, now());
    assert_eq!(shape(&first), [("update", 0)]);
    let waiting = plan::plan(&new, &[set(&old, 0, 0, 1)], true, now());
    assert_eq!(shape(&waiting), []);
    let then = plan::plan(&new, &[set(&old, 0, 0, 1)], false, now());
    assert_eq!(shape(&then), [("create", 3)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let old = deployment(3, "one", json!({}));
    let paused = deployment(5, "two", json!({"paused": true}));
    let plan = plan::plan(&paused, &[set(&old, 3, 3, 1)], false, now());
    assert_eq!(shape(&plan), [("update", 5)]);
    let status = plan.status.unwrap();
    let progressing = progress::find(&status, "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("DeploymentPaused"));
    assert_eq!(progressing.status, "Unknown");
}

#[test]
fn the_deadline_passes_and_completion_cleans_the_history() {
    let mut new = deployment(1, "five", json!({}));
    let sets: Vec<_> = (1..=4)
        .map(|number| set(&deployment(1, &format!("v{number}"), json!({})), 0, 0, number))
        .chain([set(&new, 1, 0, 5)])
        .collect();
    let before = plan::plan(&new, &sets, false, now());
    new.status = before.status;
    let wait = before.again.unwrap();
    assert_eq!(wait.as_secs(), 601);
    let late = plan::plan(&new, &sets, false, now() + wait);
    let status = late.status.unwrap();
    let progressing = progress::find(&status, "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("ProgressDeadlineExceeded"));
    assert_eq!(progressing.status, "False");
    new.status = Some(status);
    let mut sets = sets;
    sets[4] = set(&new, 1, 1, 5);
    let done = plan::plan(&new, &sets, false, now() + wait);
    let status = done.status.unwrap();
    let progressing = progress::find(&status, "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("NewReplicaSetAvailable"));
    new.status = Some(status);
    let settled = plan::plan(&new, &sets, false, now() + wait);
    assert_eq!(shape(&settled), [("delete", 0), ("delete", 0)]);
    assert_eq!(settled.status, None);
    assert_eq!(settled.again, None);
}
