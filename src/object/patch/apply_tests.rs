//! Conversations of appliers and updaters, as upstream's integration tests have them.

use serde_json::json;

use super::*;
use crate::object::schema::builtin;

fn root(kind: &str) -> Root<'static> {
    builtin().root_by_name(kind).unwrap()
}

fn who(name: &str, second: i64) -> Manager {
    Manager {
        name: name.to_owned(),
        api_version: "apps/v1".to_owned(),
        subresource: String::new(),
        time: jiff::Timestamp::from_second(1_767_225_600 + second).unwrap(),
        reset: vec![vec!["status"]],
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n"}, "spec": spec})
}

fn apply_deployment(
    live: Option<&Value>,
    spec: Value,
    who: &Manager,
    force: bool,
) -> Result<Value, Status> {
    apply(root("apps.v1.Deployment"), live, &deployment(spec), who, force)
}

fn entries(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.into_iter()
        .map(|entry| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"].clone()))
        .collect()
}

#[test]
fn a_first_apply_creates_and_owns_what_it_sets() {
    let spec = json!({"replicas": 3, "template": {"spec": {"containers":
        [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}});
    let object = apply_deployment(None, spec, &who("a", 0), false).unwrap();
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{"manager": "a", "operation": "Apply", "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {
                "f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:ports": {
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                            {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
}

#[test]
fn applying_the_same_again_changes_nothing_not_even_the_time() {
    let spec = json!({"replicas": 3});
    let first = apply_deployment(None, spec.clone(), &who("a", 0), false).unwrap();
    let second = apply_deployment(Some(&first), spec, &who("a", 60), false).unwrap();
    assert_eq!(first, second);
}

#[test]
fn what_another_owns_is_a_conflict_until_forced() {
    let first = apply_deployment(None, json!({"replicas": 3}), &who("a", 0), false).unwrap();
    let other = json!({"replicas": 5, "paused": true});
    let status = apply_deployment(Some(&first), other.clone(), &who("b", 1), false).unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let cause = &status.details.unwrap().causes[0];
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(
        (cause.field.as_str(), cause.message.as_str()),
        (".spec.replicas", "conflict with \"a\"")
    );
    // The same value is shared, not fought for.
    let shared = apply_deployment(Some(&first), json!({"replicas": 3}), &who("b", 1), false);
    assert_eq!(entries(&shared.unwrap()).len(), 2);
    let forced = apply_deployment(Some(&first), other, &who("b", 1), true).unwrap();
    assert_eq!(
        entries(&forced),
        [("b".to_owned(), json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}))]
    );
    assert_eq!(forced["spec"]["replicas"], 5);
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let first = apply_deployment(None, json!({"replicas": 3}), &who("a", 0), false).unwrap();
    let mut second = first.clone();
    second["spec"]["paused"] = json!(true);
    track(root("apps.v1.Deployment"), Some(&first), &mut second, &who("kubectl-edit", 1));
    let both = json!({"replicas": 1, "paused": false});
    let status = apply_deployment(Some(&second), both, &who("c", 2), false).unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.replicas\nconflicts with \
         \"kubectl-edit\" using apps/v1:\n- .spec.paused"
    );
}

#[test]
fn what_is_applied_no_more_goes_unless_someone_owns_it() {
    let spec = |containers: Value| json!({"template": {"spec": {"containers": containers}}});
    let two = spec(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2",
        "args": ["x"]}]));
    let first = apply_deployment(None, two, &who("a", 0), false).unwrap();
    let mut live = first.clone();
    // A defaulter's field, owned by nobody.
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    // Another applier owns the second container's image.
    let theirs = spec(json!([{"name": "b", "image": "2"}]));
    let live = apply_deployment(Some(&live), theirs, &who("z", 1), false).unwrap();
    let one = spec(json!([{"name": "a", "image": "3"}]));
    let after = apply_deployment(Some(&live), one, &who("a", 2), false).unwrap();
    assert_eq!(
        after["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "3", "imagePullPolicy": "Always"},
            {"name": "b", "image": "2"}])
    );
    let none =
        apply_deployment(Some(&after), json!({"template": {"spec": {}}}), &who("a", 3), false);
    assert_eq!(
        none.unwrap()["spec"]["template"]["spec"]["containers"],
        json!([{"name": "b", "image": "2"}])
    );
}

#[test]
fn labels_leave_one_by_one_and_atomic_values_as_a_whole() {
    let labels = |labels: Value, selector: Value| {
        let mut object = deployment(json!({"selector": {"matchLabels": selector}}));
        object["metadata"]["labels"] = labels;
        object
    };
    let kind = root("apps.v1.Deployment");
    let config = labels(json!({"x": "1", "y": "2"}), json!({"a": "1", "b": "2"}));
    let first = apply(kind, None, &config, &who("a", 0), false).unwrap();
    let mut live = first.clone();
    live["metadata"]["labels"]["other"] = json!("3");
    let config = labels(json!({"x": "1"}), json!({"a": "1"}));
    let second = apply(kind, Some(&live), &config, &who("a", 1), false).unwrap();
    assert_eq!(second["metadata"]["labels"], json!({"x": "1", "other": "3"}));
    assert_eq!(second["spec"]["selector"]["matchLabels"], json!({"a": "1"}));
    let owned = &entries(&second)[0].1;
    assert_eq!(owned["f:spec"], json!({"f:selector": {}}));
    assert_eq!(owned["f:metadata"], json!({"f:labels": {"f:x": {}}}));
}

#[test]
fn ports_are_told_apart_by_number_and_protocol() {
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": ports}})
    };
    let me = |name: &str| Manager { api_version: "v1".to_owned(), ..who(name, 0) };
    let kind = root("core.v1.Service");
    let tcp = service(json!([{"port": 53, "name": "tcp"}]));
    let first = apply(kind, None, &tcp, &me("a"), false).unwrap();
    let udp = service(json!([{"port": 53, "protocol": "UDP", "name": "udp"}]));
    let both = apply(kind, Some(&first), &udp, &me("b"), false).unwrap();
    assert_eq!(
        both["spec"]["ports"],
        json!([{"port": 53, "name": "tcp"}, {"port": 53, "protocol": "UDP", "name": "udp"}])
    );
    let explicit = service(json!([{"port": 53, "protocol": "TCP", "name": "tcp"}]));
    let same = apply(kind, Some(&both), &explicit, &me("a"), false).unwrap();
    assert_eq!(same["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let refuse = |config: Value| {
        apply(root("apps.v1.Deployment"), None, &config, &who("a", 0), false).unwrap_err()
    };
    let unknown = refuse(deployment(json!({"replicaz": 3})));
    assert_eq!(
        unknown.message,
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.replicaz: \
         field not declared in schema"
    );
    let wrong = refuse(deployment(json!({"replicas": "3", "paused": 1})));
    assert!(wrong.message.ends_with(
        "errors:\n  .spec.paused: expected boolean, got 1\n  .spec.replicas: expected numeric (int \
         or float), got string"
    ));
    let twice = json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}});
    assert!(
        refuse(deployment(twice))
            .message
            .ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(refuse(managed).message, "metadata.managedFields must be nil");
    let other = json!({"apiVersion": "v1", "kind": "Pod"});
    assert_eq!(refuse(other).message, "invalid object type: v1, Kind=Pod");
}

#[test]
fn updates_are_tracked_and_a_no_op_keeps_the_time() {
    let kind = root("apps.v1.Deployment");
    let mut object = deployment(json!({"replicas": 1, "strategy": {"rollingUpdate":
        {"maxSurge": 1}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec":
        {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}}));
    track(kind, None, &mut object, &who("kubectl-create", 0));
    assert_eq!(
        entries(&object)[0].1,
        json!({"f:spec": {"f:replicas": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec":
                {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:ports": {
                    ".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let mut same = object.clone();
    track(kind, Some(&object), &mut same, &who("other", 10));
    assert_eq!(same, object);
    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = json!(2);
    track(kind, Some(&object), &mut scaled, &who("kubectl-scale", 20));
    let all = entries(&scaled);
    assert_eq!(all[1], ("kubectl-scale".to_owned(), json!({"f:spec": {"f:replicas": {}}})));
    assert!(all[0].1["f:spec"].get("f:replicas").is_none());
}

#[test]
fn a_status_update_is_kept_apart_by_its_subresource() {
    let kind = root("apps.v1.Deployment");
    let mut object = deployment(json!({"replicas": 1}));
    object["status"] = json!({"replicas": 9});
    track(kind, None, &mut object, &who("c", 0));
    assert!(entries(&object)[0].1.get("f:status").is_none(), "the endpoint resets status");
    let status = Manager {
        subresource: "status".to_owned(),
        reset: vec![vec!["spec"]],
        ..who("controller", 1)
    };
    let mut new = object.clone();
    new["status"] = json!({"replicas": 1});
    // A client cannot rewrite its own history through a subresource.
    new["metadata"]["managedFields"] = json!([]);
    track(kind, Some(&object), &mut new, &status);
    assert_eq!(entries(&new).len(), 2);
    assert_eq!(new["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn managers_can_be_reset_and_objects_without_any_are_not_tracked() {
    let kind = root("apps.v1.Deployment");
    let mut object = deployment(json!({"replicas": 1}));
    track(kind, None, &mut object, &who("a", 0));
    let mut reset = object.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    reset["spec"]["replicas"] = json!(2);
    track(kind, Some(&object), &mut reset, &who("a", 1));
    assert!(entries(&reset).is_empty());
    // The first apply finds fields that nobody owns.
    let applied = apply_deployment(Some(&reset), json!({"replicas": 3}), &who("b", 2), false);
    let message = applied.unwrap_err().message;
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: \
         .spec.replicas"
    );
}

#[test]
fn a_very_long_list_is_merged_in_linear_time() {
    let kind = root("core.v1.Service");
    let list = |from: i64| -> Vec<Value> {
        (from..from + 10_000).map(|port| json!({"port": port})).collect()
    };
    let service = |ports: Vec<Value>| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": ports}})
    };
    let me = |name: &str| Manager { api_version: "v1".to_owned(), ..who(name, 0) };
    let first = apply(kind, None, &service(list(1)), &me("a"), false).unwrap();
    let both = apply(kind, Some(&first), &service(list(5_000)), &me("b"), false).unwrap();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 14_999);
    let patch = json!({"spec": {"ports": list(20_000)}});
    let patched = crate::object::patch::strategic::apply(kind, &first, &patch).unwrap();
    assert_eq!(patched["spec"]["ports"].as_array().unwrap().len(), 20_000);
}

#[test]
fn only_so_many_update_managers_are_kept() {
    let kind = root("apps.v1.Deployment");
    let mut object = deployment(json!({"replicas": 0}));
    track(kind, None, &mut object, &who("m00", 0));
    for number in 1..15 {
        let mut new = object.clone();
        let label = format!("l{number}");
        meta::set(&mut new, &["metadata", "labels", label.as_str()], "x");
        track(kind, Some(&object), &mut new, &who(&format!("m{number:02}"), number));
        object = new;
    }
    let all = entries(&object);
    assert_eq!(all.len(), managed::UPDATE_MANAGERS_MAX);
    assert_eq!(all[0].0, "ancient-changes");
    assert_eq!(all[0].1["f:spec"], json!({"f:replicas": {}}));
    assert_eq!(all[9].0, "m14");
}

#[test]
fn kubectls_server_side_apply_takes_over_from_its_client_side_apply() {
    let kind = root("apps.v1.Deployment");
    let mut live = deployment(json!({"replicas": 3, "paused": true}));
    let record = deployment(json!({"replicas": 3})).to_string();
    meta::set(&mut live, &["metadata", "annotations", LAST_APPLIED], record);
    track(kind, None, &mut live, &who("kubectl-client-side-apply", 0));
    let taken = apply_deployment(Some(&live), json!({"replicas": 5}), &who("kubectl", 1), false);
    let taken = taken.unwrap();
    assert_eq!(taken["spec"]["replicas"], 5);
    let record: Value = serde_json::from_str(last_applied(&taken)).unwrap();
    assert_eq!(record["spec"]["replicas"], 5);
    // What client-side apply did not set stays a conflict, and so does any other manager's name.
    let paused = json!({"replicas": 5, "paused": false});
    let status = apply_deployment(Some(&live), paused, &who("kubectl", 1), false).unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: \
         .spec.paused"
    );
    assert!(apply_deployment(Some(&live), json!({"replicas": 5}), &who("x", 1), false).is_err());
}
