//! The store from outside: open, write, read, watch, close, open again.
//!
//! Why here and not in each file: these promises hold only of all parts together.

use std::time::Duration;

use bytes::Bytes;

use super::*;

const SPACE: Keyspace = Keyspace::Kubernetes;

/// An open store and what ends it.
struct Running {
    store: Store,
    tasks: Tasks,
}

fn config(dir: &std::path::Path) -> Config {
    Config { ballast_bytes: 0, tick: Duration::from_millis(20), ..Config::new(dir) }
}

async fn open(config: Config) -> Running {
    let tasks = Tasks::new();
    let store = Store::open(config, &tasks).await.expect("open");
    Running { store, tasks }
}

impl Running {
    async fn close(self) {
        self.tasks.shutdown().await;
        assert_eq!(self.tasks.failure(), None);
    }

    async fn put(&self, key: &str, value: &str) -> u64 {
        put(&self.store, key, value).await
    }
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    let op = Op::put(key.to_owned(), value.to_owned());
    store.txn(Txn::new(SPACE).then(op)).await.expect("put").revision
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening_with_revisions_going_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    let cluster = running.store.cluster_id().to_owned();
    assert_eq!(running.store.view(SPACE).revision(), 1);
    assert_eq!(running.put("a", "1").await, 2);
    assert_eq!(running.put("b", "2").await, 3);
    let reply = running.store.txn(Txn::new(SPACE).then(Op::delete("a"))).await.unwrap();
    assert_eq!(reply.revision, 4);
    running.close().await;

    let running = open(config(dir.path())).await;
    assert_eq!(running.store.cluster_id(), cluster);
    let view = running.store.linearizable_view(SPACE).await.unwrap();
    assert_eq!(view.revision(), 4);
    assert!(view.get(b"a").is_none());
    assert_eq!(view.get(b"b").unwrap().value, key("2"));
    let mut watcher = running.store.watch(SPACE, KeyRange::all(), 1).unwrap();
    let events = watcher.next().await.unwrap().unwrap();
    let revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, [2, 3, 4]);
    assert_eq!(running.put("a", "3").await, 5);
    assert_eq!(watcher.next().await.unwrap().unwrap()[0].revision, 5);
    running.close().await;
}
