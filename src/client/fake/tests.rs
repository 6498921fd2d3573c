//! The fake server's own tests: the rules that loops rely on.

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::stdx::clock::ManualClock;

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

fn server() -> FakeServer {
    FakeServer::new(ManualClock::at(Timestamp::from_second(1_700_000_000).unwrap()))
}

async fn create(client: &SharedClient, name: &str, labels: Value) -> Value {
    let body = json!({"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "n"}});
    let target = Target::all(&pods(), "default");
    client.create(&target, body, &WriteOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_watch_shows_selector_transitions_in_order_and_resumes() {
    let server = server();
    let client = server.client();
    let options = ListOptions {
        label_selector: "a=b".to_owned(),
        send_initial_events: true,
        ..ListOptions::default()
    };
    create(&client, "one", json!({"a": "b"})).await;
    let target = Target::all(&pods(), "default");
    let mut watch = client.watch(&target, &options).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    let mark = watch.next().await.unwrap().unwrap();
    assert_eq!(mark, WatchEvent::Bookmark { resource_version: 1, initial_events_end: true });
    let one = Target::object(&pods(), "default", "one");
    for (label, deleted) in [("c", true), ("b", false)] {
        let body = json!({"metadata": {"labels": {"a": label}}});
        client.patch(&one, PatchKind::Merge, body, &WriteOptions::default()).await.unwrap();
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(matches!(event, WatchEvent::Deleted(_)), deleted, "{event:?}");
    }
    let resumed = ListOptions { resource_version: "2".to_owned(), ..ListOptions::default() };
    let mut watch = client.watch(&target, &resumed).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Modified(_)))));
    server.compact();
    let mut watch = client.watch(&target, &resumed).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap_err().is_expired());
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn deletion_waits_for_grace_and_finalizers() {
    let server = server();
    let client = server.client();
    create(&client, "p", json!({})).await;
    let target = Target::object(&pods(), "default", "p");
    let body = json!({"metadata": {"finalizers": ["x/y"]}});
    client.patch(&target, PatchKind::Merge, body, &WriteOptions::default()).await.unwrap();
    let ending = client.delete(&target, &DeleteOptions::default()).await.unwrap();
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete(&target, &now).await.unwrap();
    assert!(client.get(&target).await.is_ok());
    let body = json!({"metadata": {"finalizers": null}});
    client.patch(&target, PatchKind::Merge, body, &WriteOptions::default()).await.unwrap();
    assert!(client.get(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn stale_writes_conflict_and_status_is_split_from_spec() {
    let server = server();
    let client = server.client();
    let first = create(&client, "p", json!({})).await;
    let target = Target::object(&pods(), "default", "p");
    let mut body = first.clone();
    body["spec"]["priority"] = json!(3);
    body["status"]["phase"] = json!("Running");
    let second = client.update(&target, body.clone(), &WriteOptions::default()).await.unwrap();
    assert_eq!(second["status"]["phase"], "Pending");
    assert_eq!(second["metadata"]["generation"], 2);
    let stale = client.update(&target, body, &WriteOptions::default()).await.unwrap_err();
    assert!(stale.is_conflict());
    let mut body = second.clone();
    body["status"]["phase"] = json!("Running");
    body["spec"]["priority"] = json!(4);
    let status = target.clone().sub("status");
    let third = client.update(&status, body, &WriteOptions::default()).await.unwrap();
    assert_eq!(third["status"]["phase"], "Running");
    assert_eq!(third["spec"]["priority"], 3);
    let again = client.update(&status, third.clone(), &WriteOptions::default()).await.unwrap();
    assert_eq!(meta::resource_version(&again), meta::resource_version(&third));
}

#[tokio::test]
async fn an_ending_namespace_takes_nothing_new() {
    let server = server();
    let client = server.client();
    let namespaces = Gvr::new("", "v1", "namespaces");
    let body = json!({"metadata": {"name": "default"}});
    let all = Target::all(&namespaces, "");
    client.create(&all, body, &WriteOptions::default()).await.unwrap();
    let target = Target::object(&namespaces, "", "default");
    client.delete(&target, &DeleteOptions::default()).await.unwrap();
    let pod = json!({"metadata": {"generateName": "p-"}});
    let made = client.create(&Target::all(&pods(), "default"), pod, &WriteOptions::default()).await;
    assert_eq!(made.unwrap_err().code, 403);
    let mut ending = client.get(&target).await.unwrap();
    ending["spec"]["finalizers"] = json!([]);
    let finalize = target.clone().sub("finalize");
    client.update(&finalize, ending, &WriteOptions::default()).await.unwrap();
    assert!(client.get(&target).await.unwrap_err().is_not_found());
}
