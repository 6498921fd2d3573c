//! The three cascades and the absent owner, against the fake server.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use super::*;
use crate::client::fake::FakeServer;
use crate::client::{DeleteOptions, WriteOptions};
use crate::reconcile::{Executor, Informers, Object, Recorder, driver};
use crate::stdx::clock::SystemClock;

fn kinds() -> Kinds {
    let served = |gvr: Gvr, kind: &str| ServedKind {
        gvr,
        kind: kind.to_owned(),
        namespaced: true,
        deletable: true,
    };
    Arc::new(move || vec![served(Pod::gvr(), "Pod"), served(ConfigMap::gvr(), "ConfigMap")])
}

struct Bench {
    server: FakeServer,
    tasks: Tasks,
}

impl Bench {
    fn new() -> Self {
        Self { server: FakeServer::new(SystemClock::shared()), tasks: Tasks::new() }
    }

    fn start(&self) {
        let (client, clock) = (self.server.client(), SystemClock::shared());
        let collector = GarbageCollector::new(client.clone(), kinds(), &self.tasks);
        let informers = Informers::new(client.clone(), &self.tasks);
        let recorder = Recorder::new(client.clone(), clock, &self.tasks, "gc", "");
        let executor = Executor::new(client, informers, recorder);
        driver::start(&self.tasks, Arc::new(collector), executor);
    }

    async fn settle(&self) {
        // Virtual time: passes before all tasks are idle do not count.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn map(&self, name: &str, owners: &[(&str, &str, bool)]) -> String {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(name, uid, blocks)| {
                json!({"apiVersion": "v1", "kind": "ConfigMap",
                "name": name, "uid": uid, "blockOwnerDeletion": blocks})
            })
            .collect();
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "ownerReferences": owners}});
        let target = Target::all(&ConfigMap::gvr(), "ns");
        let made = self.server.client().create(&target, body, &WriteOptions::default()).await;
        meta::uid(&made.unwrap()).to_owned()
    }

    async fn delete(&self, name: &str, propagation: Propagation) {
        let target = Target::object(&ConfigMap::gvr(), "ns", name);
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        self.server.client().delete(&target, &options).await.unwrap();
    }

    fn names(&self) -> Vec<String> {
        let all = self.server.all(&ConfigMap::gvr());
        all.iter().map(|map| meta::name(map).to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn background_takes_dependents_after_their_last_owner() {
    let bench = Bench::new();
    let (a, b) = (bench.map("a", &[]).await, bench.map("b", &[]).await);
    let child = bench.map("child", &[("a", &a, true)]).await;
    bench.map("grandchild", &[("child", &child, true)]).await;
    bench.map("shared", &[("a", &a, true), ("b", &b, true)]).await;
    bench.start();
    bench.settle().await;
    bench.delete("a", Propagation::Background).await;
    bench.settle().await;
    assert_eq!(bench.names(), ["b", "shared"]);
    let shared = bench.server.all(&ConfigMap::gvr()).pop().unwrap();
    assert_eq!(meta::owners(&shared).len(), 1, "the lost owner is forgotten");
    bench.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn foreground_takes_dependents_first() {
    let bench = Bench::new();
    let a = bench.map("a", &[]).await;
    let child = bench.map("child", &[("a", &a, true)]).await;
    bench.map("grandchild", &[("child", &child, true)]).await;
    bench.start();
    bench.settle().await;
    let gate = |request: &crate::client::fake::Request, _: &Value| {
        let held = request.verb == "delete" && request.target.name == "grandchild";
        held.then(|| Status::unavailable("held"))
    };
    bench.server.set_gate(gate);
    bench.delete("a", Propagation::Foreground).await;
    bench.settle().await;
    assert_eq!(bench.names(), ["a", "child", "grandchild"]);
    bench.server.clear_gate();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.names(), [""; 0]);
    bench.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn orphaning_sets_dependents_free() {
    let bench = Bench::new();
    let a = bench.map("a", &[]).await;
    bench.map("child", &[("a", &a, true)]).await;
    bench.start();
    bench.settle().await;
    bench.delete("a", Propagation::Orphan).await;
    bench.settle().await;
    assert_eq!(bench.names(), ["child"]);
    assert!(meta::owners(&bench.server.all(&ConfigMap::gvr())[0]).is_empty());
    bench.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_another_uid_is_no_owner_and_an_unknown_kind_is_left_alone() {
    let bench = Bench::new();
    let a = bench.map("a", &[]).await;
    bench.map("imposter", &[("a", "another-uid", true)]).await;
    bench.map("mine", &[("a", &a, true)]).await;
    let target = Target::all(&ConfigMap::gvr(), "ns");
    let body = json!({"metadata": {"name": "strange", "ownerReferences": [
        {"apiVersion": "x.io/v1", "kind": "Unknown", "name": "u", "uid": "u"}]}});
    bench.server.client().create(&target, body, &WriteOptions::default()).await.unwrap();
    bench.start();
    bench.settle().await;
    assert_eq!(bench.names(), ["a", "mine", "strange"]);
    bench.tasks.shutdown().await;
}
