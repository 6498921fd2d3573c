//! The API server over HTTPS: what clients rely on, whatever the kind.

use clusterd::client::{Client, ListOptions, Target, WriteOptions};
use clusterd::object::{Gvr, Value};
use futures::{SinkExt, StreamExt};
use http::{Method, Request};
use serde_json::json;

use crate::support::api::{JSON, Server, read};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap_or("")
}

#[tokio::test]
async fn every_kind_is_created_listed_and_deleted_where_discovery_says() {
    let server = Server::start().await;
    let groups = server.get("/apis").await.value["groups"].clone();
    let mut paths = vec!["/api/v1".to_owned()];
    for group in groups.as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            paths.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        }
    }
    let mut listed = 0;
    for path in paths {
        let resources = server.get(&path).await.value["resources"].clone();
        for one in resources.as_array().unwrap() {
            let name = one["name"].as_str().unwrap();
            let has = |verb| one["verbs"].as_array().unwrap().contains(&json!(verb));
            if name.contains('/') || !has("list") {
                continue;
            }
            let list = server.get(&format!("{path}/{name}")).await;
            assert_eq!(list.code, 200, "{path}/{name}: {}", list.text);
            let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
            let table = server.call(Method::GET, &format!("{path}/{name}"), &table, "").await;
            assert_eq!(table.value["kind"], "Table", "{path}/{name}");
            listed += 1;
        }
    }
    assert!(listed > 50, "{listed}");
    server.stop().await;
}

#[tokio::test]
async fn an_object_has_a_life() {
    let server = Server::start().await;
    let made = server.post(MAPS, map("m")).await;
    assert_eq!(made.code, 201);
    assert!(!made.value["metadata"]["uid"].as_str().unwrap().is_empty());
    assert!(made.headers.contains_key("audit-id"));
    let again = server.post(MAPS, map("m")).await;
    assert_eq!(
        (again.code.as_u16(), message(&again.value)),
        (409, "configmaps \"m\" already exists")
    );

    let path = format!("{MAPS}/m");
    let mut object = server.get(&path).await.value;
    assert_eq!(object, made.value);
    object["data"]["a"] = json!("2");
    let stale = object.clone();
    let put = server.put(&path, object.clone()).await;
    assert_eq!(put.code, 200);
    assert_ne!(put.value["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    let conflict = server.put(&path, stale).await;
    assert_eq!(conflict.code, 409);
    assert!(message(&conflict.value).contains("the object has been modified"));
    let same = server.put(&path, put.value.clone()).await;
    assert_eq!(same.value, put.value, "a write that changes nothing makes no revision");
    let mut other = put.value.clone();
    other["metadata"]["uid"] = json!("another");
    assert_eq!(server.put(&path, other).await.code, 409);

    let gone = server.delete(&path, Value::Null).await;
    assert_eq!((&gone.value["kind"], &gone.value["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone.value["details"]["uid"], made.value["metadata"]["uid"]);
    let missing = server.get(&path).await;
    assert_eq!(
        (missing.code.as_u16(), message(&missing.value)),
        (404, "configmaps \"m\" not found")
    );
    server.stop().await;
}

#[tokio::test]
async fn finalizers_and_preconditions_hold_a_delete() {
    let server = Server::start().await;
    let mut object = map("f");
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    let made = server.post(MAPS, object).await.value;
    let path = format!("{MAPS}/f");
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(server.delete(&path, wrong).await.code, 409);
    let ending = server.delete(&path, json!({"propagationPolicy": "Foreground"})).await.value;
    assert!(ending["metadata"]["deletionTimestamp"].is_string(), "{ending}");
    assert_eq!(ending["metadata"]["finalizers"], json!(["example.com/x", "foregroundDeletion"]));
    let patch = json!({"metadata": {"finalizers": ["example.com/y"]}});
    let added = server.patch(&path, "application/merge-patch+json", patch).await;
    assert_eq!(added.code, 422, "{}", added.text);
    let patch = json!({"metadata": {"finalizers": null}});
    let last = server.patch(&path, "application/merge-patch+json", patch).await;
    assert_eq!(last.code, 200);
    assert_eq!(last.value["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(server.get(&path).await.code, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_delivers_each_matching_change_once() {
    let server = Server::start().await;
    let start = server.get(MAPS).await.value["metadata"]["resourceVersion"].clone();
    let start = start.as_str().unwrap();
    let mut object = map("w");
    object["metadata"]["labels"] = json!({"x": "1"});
    server.post(MAPS, object).await;
    let path = format!("{MAPS}/w");
    let label = |value: Value| json!({"metadata": {"labels": {"x": value}}});
    let merge = "application/merge-patch+json";
    server.patch(&path, merge, json!({"data": {"a": "2"}})).await;
    server.patch(&path, merge, label(json!("2"))).await;
    server.patch(&path, merge, label(json!("1"))).await;
    server.post(MAPS, map("other")).await;
    server.delete(&path, Value::Null).await;

    let query = format!("{MAPS}?watch=1&labelSelector=x%3D1&resourceVersion={start}");
    let events = server.watch(&query, 5).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    let revisions: Vec<u64> = events
        .iter()
        .map(|(_, object)| object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");

    let named =
        format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dother&resourceVersion={start}");
    assert_eq!(server.watch(&named, 1).await[0].1["metadata"]["name"], "other");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_list_ends_its_first_part_with_a_bookmark() {
    let server = Server::start().await;
    server.post(MAPS, map("a")).await;
    let query = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan"
    );
    let mut events = server.follow(&query).await;
    assert_eq!(events.next().await.unwrap().0, "ADDED");
    let (kind, mark) = events.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.post(MAPS, map("b")).await;
    assert_eq!(events.next().await.unwrap().1["metadata"]["name"], "b");
    let short = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1"), 10).await;
    assert_eq!(short.len(), 2, "the present state, then the end");
    let refused = server.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
    server.stop().await;
}

#[tokio::test]
async fn pages_show_one_moment() {
    let server = Server::start().await;
    for at in 0..5 {
        server.post(MAPS, map(&format!("m{at}"))).await;
    }
    let first = server.get(&format!("{MAPS}?limit=2")).await.value;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server.delete(&format!("{MAPS}/m3"), Value::Null).await;
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut names = vec![];
    while !token.is_empty() {
        let page = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.value;
        let version = &page["metadata"]["resourceVersion"];
        assert_eq!(version, &first["metadata"]["resourceVersion"]);
        let items = page["items"].as_array().unwrap().clone();
        names.extend(items.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()));
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
    }
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(server.get(&format!("{MAPS}?continue=nonsense")).await.code, 400);
    // By the local client: kube's own would try again for minutes.
    let future = ListOptions { resource_version: "100000".to_owned(), ..ListOptions::default() };
    let all = Target::all(&Gvr::new("", "v1", "configmaps"), "default");
    let status = server.local("admin").list(&all, &future).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    let gone = server.call(Method::DELETE, MAPS, &[], "").await;
    assert_eq!(gone.value["items"].as_array().unwrap().len(), 4);
    assert_eq!(server.get(MAPS).await.value["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn all_four_patches_change_an_object() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels":
        {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers":
        [{"name": "c", "image": "i:1"}]}}}});
    let made = server.post(path, deployment.clone()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let path = format!("{path}/d");
    let containers = json!({"spec": {"template": {"spec": {"containers":
        [{"name": "e", "image": "i:2"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    let patched = server.patch(&path, strategic, containers.clone()).await.value;
    let list =
        |value: &Value| value["spec"]["template"]["spec"]["containers"].as_array().unwrap().len();
    assert_eq!((list(&patched), &patched["metadata"]["generation"]), (2, &json!(2)));
    let merge = "application/merge-patch+json";
    assert_eq!(list(&server.patch(&path, merge, containers).await.value), 1);
    let ops = json!([{"op": "replace", "path": "/spec/replicas", "value": 7}]);
    let patched = server.patch(&path, "application/json-patch+json", ops).await.value;
    assert_eq!(patched["spec"]["replicas"], 7);

    let apply = "application/apply-patch+yaml";
    let config = |replicas: u64| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d"}, "spec": {"replicas": replicas}})
    };
    let by = |who: &str| format!("{path}?fieldManager={who}");
    let unnamed = server.patch(&path, apply, config(1)).await;
    assert_eq!(unnamed.code, 422, "{}", unnamed.text);
    let clash = server.patch(&by("one"), apply, config(1)).await;
    assert_eq!(clash.code, 409, "{}", clash.text);
    let forced = server.patch(&format!("{}&force=true", by("one")), apply, config(1)).await;
    assert_eq!((forced.code.as_u16(), &forced.value["spec"]["replicas"]), (200, &json!(1)));
    let managers = forced.value["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|one| one["manager"] == "one" && one["operation"] == "Apply"));
    let scale = server.get(&format!("{path}/scale")).await.value;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!(1), &json!("a=b"))
    );
    let unknown = server.patch(&path, "text/plain", json!({})).await;
    assert_eq!(unknown.code, 415);
    server.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers":
        [{"name": "a", "image": "b", "foo": 1}]}});
    let strict = server.post(&format!("{pods}?fieldValidation=Strict"), pod.clone()).await;
    assert_eq!(strict.code, 400);
    assert!(message(&strict.value).contains("unknown field \"spec.containers[0].foo\""));
    let warned = server.post(&format!("{pods}?dryRun=All"), pod).await;
    assert_eq!(warned.code, 201, "{}", warned.text);
    let warning = warned.headers["warning"].to_str().unwrap().to_owned();
    assert_eq!(warning, "299 - \"unknown field \\\"spec.containers[0].foo\\\"\"");
    assert_eq!(server.get(pods).await.value["items"], json!([]));

    for (body, kind, code) in [
        ("{".to_owned(), "application/json", 400),
        ("a: [".to_owned(), "application/yaml", 400),
        ("x".repeat(4 << 20), "application/json", 413),
        ("[".repeat(10_000), "application/json", 400),
        ("{}".to_owned(), "text/plain", 415),
        (json!({"metadata": {"name": "x".repeat(300)}}).to_string(), "application/json", 422),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}).to_string(),
            "application/json",
            400,
        ),
        (
            json!({"metadata": {"name": "x", "namespace": "other"}}).to_string(),
            "application/json",
            400,
        ),
    ] {
        let headers = [("content-type", kind)];
        let answer = server.call(Method::POST, MAPS, &headers, body.clone()).await;
        let start: String = body.chars().take(60).collect();
        assert_eq!(answer.code, code, "{start}: {}", answer.text);
        assert_eq!(answer.value["kind"], "Status", "{start}");
    }
    assert_eq!(server.get(MAPS).await.value["items"], json!([]));
    let accept = [("accept", "text/plain")];
    assert_eq!(server.call(Method::GET, MAPS, &accept, "").await.code, 406);
    let large =
        json!({"metadata": {"name": "l"}, "revision": 1, "data": {"x": "x".repeat(1_600_000)}});
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let large = server.post(revisions, large).await;
    assert_eq!(large.code, 413, "{}", message(&large.value));
    server.stop().await;
}

#[tokio::test]
async fn who_asks_decides_and_health_needs_nobody() {
    let server = Server::start().await;
    let get = |path: &str| Request::builder().uri(path.to_owned()).body(Vec::new()).unwrap();
    let refused = read(server.send("nobody", get(MAPS)).await).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        message(&refused.value),
        "configmaps is forbidden: User \"nobody\" cannot list resource \"configmaps\" in API group \
         \"\" in the namespace \"default\""
    );
    assert_eq!(read(server.send("unknown", get(MAPS)).await).await.code, 401);
    assert_eq!(read(server.send("", get(MAPS)).await).await.code, 401);
    let health = server.get("/readyz?verbose").await;
    assert!(health.text.ends_with("readyz check passed\n"), "{}", health.text);
    let impersonated = Request::builder().uri(MAPS).header("impersonate-user", "nobody");
    let answer = server.send("admin", impersonated.body(Vec::new()).unwrap()).await;
    assert_eq!(read(answer).await.code, 403);
    let version = server.get("/version").await.value;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."));
    server.stop().await;
}

#[tokio::test]
async fn generated_names_are_unique_and_bindings_happen_once() {
    let server = Server::start().await;
    let body = json!({"metadata": {"generateName": "g-"}});
    let (one, two) = (server.post(MAPS, body.clone()).await, server.post(MAPS, body).await);
    assert_ne!(one.value["metadata"]["name"], two.value["metadata"]["name"]);
    assert!(one.value["metadata"]["name"].as_str().unwrap().starts_with("g-"));

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers":
        [{"name": "a", "image": "b"}]}});
    assert_eq!(server.post(pods, pod).await.code, 201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let path = format!("{pods}/p/binding");
    assert_eq!(server.post(&path, binding.clone()).await.code, 201);
    let again = server.post(&path, binding).await;
    assert_eq!(
        message(&again.value),
        "Operation cannot be fulfilled on pods/binding \"p\": pod p \
        is already assigned to node \"n\""
    );
    assert_eq!(server.get(&format!("{pods}/p")).await.value["spec"]["nodeName"], "n");
    let eviction = json!({"metadata": {"name": "p"}});
    assert_eq!(server.post(&format!("{pods}/p/eviction"), eviction).await.code, 201);
    server.stop().await;
}

#[tokio::test]
async fn a_component_in_the_process_sees_the_same() {
    let server = Server::start().await;
    let client = |name: &str| server.local(name);
    let maps = Gvr::new("", "v1", "configmaps");
    let all = Target::all(&maps, "default");
    let made = client("admin").create(&all, map("l"), &WriteOptions::default()).await.unwrap();
    let seen = server.get(&format!("{MAPS}/l")).await.value;
    assert_eq!(made, seen);
    let list = client("admin").list(&all, &ListOptions::default()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&list.items[0]).unwrap(), seen);
    let refused = client("nobody").list(&all, &ListOptions::default()).await.unwrap_err();
    assert_eq!(refused.code, 403);
    server.stop().await;
}

#[tokio::test]
async fn discovery_is_aggregated_for_who_asks() {
    let server = Server::start().await;
    let accept =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let answer = server.call(Method::GET, "/apis", &accept, "").await;
    assert_eq!(answer.value["kind"], "APIGroupDiscoveryList");
    let etag = answer.headers["etag"].to_str().unwrap();
    let headers = [accept[0], ("if-none-match", etag)];
    assert_eq!(server.call(Method::GET, "/apis", &headers, "").await.code, 304);
    let index = server.get("/openapi/v3").await.value;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = server.get(url).await.value;
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let yaml = [("accept", "application/yaml"), JSON];
    let namespace = server.call(Method::GET, "/api/v1/namespaces/default", &yaml, "").await;
    assert!(namespace.text.contains("kind: Namespace"), "{}", namespace.text);
    server.stop().await;
}

#[tokio::test]
async fn streams_reach_the_node_without_the_callers_secret() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers":
        [{"name": "a", "image": "b"}]}});
    assert_eq!(server.post(pods, pod).await.code, 201);
    let log = server.get(&format!("{pods}/p/log?tailLines=3")).await;
    assert_eq!(log.text, "n /containerLogs/default/p/a?tailLines=3 secret=false");
    let wrong = server.get(&format!("{pods}/p/log?container=x")).await;
    assert_eq!(message(&wrong.value), "container x is not valid for pod p");

    let exec = format!("{pods}/p/exec?command=sh&command=a%20b&stdin=true&stdout=true");
    let request = Request::builder().uri(&exec).body(Vec::new()).unwrap();
    let mut socket = server.client("admin").connect(request).await.unwrap().into_stream();
    let told = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(
        told.as_str(),
        "n /exec/default/p/a?input=1&output=1&command=sh&command=a%20b secret=false"
    );
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");
    let request = Request::builder().uri(&exec).body(Vec::new()).unwrap();
    assert!(server.client("nobody").connect(request).await.is_err());
    server.stop().await;
}
