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

/// Events until one of `revision` has come.
async fn until(watcher: &mut Watcher, revision: u64) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.revision < revision) {
        events.extend(watcher.next().await.expect("open").expect("events"));
    }
    events
}

#[tokio::test]
async fn a_watch_shows_its_range_once_and_in_order_with_the_state_before() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    let mut pods = running.store.watch(SPACE, KeyRange::prefix("pods/"), 0).unwrap();
    let mut one = running.store.watch(SPACE, KeyRange::key("pods/a"), 0).unwrap();
    running.put("pods/a", "1").await;
    running.put("nodes/a", "1").await;
    running.put("pods/a", "2").await;
    running.put("pods/b", "1").await;
    let deleted = running.store.txn(Txn::new(SPACE).then(Op::delete("pods/a"))).await.unwrap();
    let events = until(&mut pods, deleted.revision).await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.revision, event.kind, event.entry.value.clone(), event.prev.is_some()))
        .collect();
    let (put, delete) = (EventKind::Put, EventKind::Delete);
    assert_eq!(
        seen,
        [
            (2, put, key("1"), false),
            (4, put, key("2"), true),
            (5, put, key("1"), false),
            (6, delete, key("2"), true),
        ]
    );
    assert_eq!(until(&mut one, 6).await.len(), 3);
    running.put("nodes/b", "1").await;
    assert_eq!(pods.take().unwrap(), []);
    assert_eq!(pods.progress(), 7);
    running.put("pods/c", "1").await;
    assert_eq!(pods.progress(), 7, "an event of the range waits");
    assert_eq!(until(&mut pods, 8).await.len(), 1);
    running.close().await;
    assert!(pods.next().await.is_none());
}

#[tokio::test]
async fn a_watcher_that_falls_behind_history_is_told_once_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Config { history_bytes_max: 20_000, ..config(dir.path()) };
    let running = open(bounded).await;
    let mut slow = running.store.watch(SPACE, KeyRange::all(), 1).unwrap();
    let mut quick = running.store.watch(SPACE, KeyRange::all(), 1).unwrap();
    let mut last = 1;
    let large = "x".repeat(1_000);
    while running.store.oldest_revision(SPACE) == 1 {
        last = running.put("a", &large).await;
        if let Some(event) = until(&mut quick, last).await.first() {
            assert_eq!(event.revision, last);
        }
    }
    let oldest = running.store.oldest_revision(SPACE);
    assert!(oldest > 1 && oldest < last);
    assert!(matches!(slow.next().await, Some(Err(Error::Compacted { .. }))));
    assert!(slow.next().await.is_none());
    let store = &running.store;
    assert!(matches!(store.view_at(SPACE, oldest - 1), Err(Error::Compacted { .. })));
    assert!(store.watch(SPACE, KeyRange::all(), oldest - 1).is_err());
    assert_eq!(store.view_at(SPACE, oldest).unwrap().revision(), oldest);
    let mut edge = store.watch(SPACE, KeyRange::all(), oldest).unwrap();
    assert_eq!(edge.next().await.unwrap().unwrap()[0].revision, oldest + 1);
    running.close().await;
    // What was dropped stays dropped.
    let running = open(config(dir.path())).await;
    assert_eq!(running.store.oldest_revision(SPACE), oldest);
    running.close().await;
}

#[tokio::test]
async fn history_of_an_age_is_let_go_also_without_traffic() {
    let dir = tempfile::tempdir().unwrap();
    let aging = Config { history_age_max: Duration::from_millis(60), ..config(dir.path()) };
    let running = open(aging).await;
    let revision = running.put("a", "1").await;
    let mut applied = running.store.shared.applied.subscribe();
    let gone = applied.wait_for(|_| running.store.oldest_revision(SPACE) == revision);
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("let go").unwrap();
    assert_eq!(running.store.stats().history_events, 0);
    assert!(running.store.view(SPACE).get(b"a").is_some());
    running.close().await;
}

#[tokio::test]
async fn old_revisions_read_as_they_were_and_later_ones_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    for number in 0..20 {
        running.put(&format!("k{:02}", number % 10), &format!("{number}")).await;
    }
    let store = running.store.clone();
    let old = store.view_at(SPACE, 11).unwrap();
    let range = KeyRange::prefix("k");
    let values = old.range(&range, None).map(|entry| entry.value.clone()).collect::<Vec<_>>();
    assert_eq!(values[0], "0");
    assert_eq!(values.len(), 10);
    let page: Vec<_> = old.range(&range, Some(b"k07")).map(|entry| entry.key.clone()).collect();
    assert_eq!(page, ["k08", "k09"]);
    assert_eq!(old.count(&range, Some(b"k07")), 2);
    let again = store.view_at(SPACE, 11).unwrap();
    assert!(again.map.ptr_eq(&old.map), "the next page is not put together again");
    assert_eq!(old.count(&KeyRange::between("k03", "k05"), Some(b"k09")), 0);
    assert!(matches!(store.view_at(SPACE, 22), Err(Error::Future { current: 21, .. })));
    let wait = store.wait_applied(SPACE, 22, Duration::from_secs(20));
    let (waited, revision) = tokio::join!(wait, running.put("k", "v"));
    assert_eq!(revision, 22);
    waited.unwrap();
    let never = store.wait_applied(SPACE, 23, Duration::from_millis(1)).await;
    assert!(matches!(never, Err(Error::Future { requested: 23, current: 22 })));
    running.close().await;
}

#[tokio::test]
async fn writes_that_arrive_together_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    let before = running.store.stats();
    for number in 0..10 {
        running.put("a", &format!("{number}")).await;
    }
    let alone = running.store.stats();
    assert!(alone.syncs - before.syncs >= 10, "each acknowledgement needs its own sync");
    let names: Vec<String> = (0..500).map(|number| format!("k{number}")).collect();
    futures::future::join_all(names.iter().map(|name| running.put(name, "v"))).await;
    let together = running.store.stats();
    assert_eq!(together.txns - alone.txns, 500);
    assert!(together.syncs - alone.syncs < 100, "{:?}", together);
    running.close().await;
}

#[tokio::test]
async fn keys_expire_by_the_wall_clock_unless_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = crate::stdx::clock::ManualClock::at(jiff::Timestamp::from_second(1_000).unwrap());
    let timed = Config { clock: clock.clone(), ..config(dir.path()) };
    let running = open(timed.clone()).await;
    let expiring = |name: &str, at: u64| {
        let op = Op::Put { key: key(name), value: key("v"), slot: None, expires_at_ms: Some(at) };
        running.store.txn(Txn::new(SPACE).then(op))
    };
    expiring("stays", 1_000_500).await.unwrap();
    expiring("later", 2_000_000).await.unwrap();
    expiring("stays", 3_000_000).await.unwrap();
    let mut watcher = running.store.watch(SPACE, KeyRange::all(), 0).unwrap();
    clock.advance(Duration::from_secs(10));
    // Due at once, so the sleeper looks at the clock again.
    expiring("soon", 1_005_000).await.unwrap();
    let events = until(&mut watcher, 6).await;
    assert_eq!((events[1].kind, &events[1].entry.key[..]), (EventKind::Delete, &b"soon"[..]));
    assert_eq!(running.store.view(SPACE).count(&KeyRange::all(), None), 2);
    running.close().await;
    // Found again at the next start.
    clock.advance(Duration::from_secs(1_500));
    let running = open(timed).await;
    let mut watcher = running.store.watch(SPACE, KeyRange::all(), 6).unwrap();
    assert_eq!(until(&mut watcher, 7).await[0].entry.key, "later");
    assert!(running.store.view(SPACE).get(b"stays").is_some());
    running.close().await;
}

#[tokio::test]
async fn the_log_is_cut_only_below_what_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let short = Config { log_entries_max: 50, ..config(dir.path()) };
    let running = open(short.clone()).await;
    while running.store.stats().log_first_index < 100 {
        running.put("a", "some value").await;
        let stats = running.store.stats();
        assert!(stats.log_first_index <= stats.flushed_index + 1, "{stats:?}");
    }
    let revision = running.put("b", "2").await;
    running.close().await;
    let running = open(short).await;
    assert_eq!(running.store.view(SPACE).revision(), revision);
    running.close().await;
}

#[tokio::test]
async fn a_directory_in_use_or_of_another_cluster_or_member_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Config { cluster_id: "ours".to_owned(), ..config(dir.path()) };
    let running = open(ours.clone()).await;
    let refuse = async |config: Config| {
        let tasks = Tasks::new();
        let error = Store::open(config, &tasks).await.map(|_| ()).unwrap_err();
        tasks.shutdown().await;
        assert_eq!(tasks.failure(), None, "a refusal is not a crash");
        error
    };
    assert!(matches!(refuse(ours.clone()).await, Error::Locked(_)));
    running.close().await;
    let theirs = Config { cluster_id: "theirs".to_owned(), ..ours.clone() };
    let text = refuse(theirs).await.to_string();
    assert!(text.contains("\"ours\"") && text.contains("\"theirs\""), "{text}");
    let other = Config { node_id: 2, ..ours.clone() };
    assert!(matches!(refuse(other).await, Error::Foreign { what: "member", .. }));
    open(ours).await.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_lets_deletes_and_reads_pass() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    running.put("a", "1").await;
    running.close().await;
    let full = Config { disk_free_bytes_min: u64::MAX / 2, ..config(dir.path()) };
    let running = open(full).await;
    let refused = running.store.txn(Txn::new(SPACE).then(Op::put("b", "1"))).await;
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    assert!(running.store.stats().disk_full);
    assert!(running.store.linearizable_view(SPACE).await.unwrap().get(b"a").is_some());
    running.store.txn(Txn::new(SPACE).then(Op::delete("a"))).await.unwrap();
    running.close().await;
    let running = open(config(dir.path())).await;
    assert_eq!(running.put("b", "1").await, 4);
    running.close().await;
}

#[tokio::test]
async fn the_term_of_leadership_fences() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    let leadership = *running.store.leadership().borrow();
    assert!(leadership.is_self && leadership.leader_id == Some(1));
    let fenced = |term| Txn::new(SPACE).then(Op::put("a", "1")).in_term(term);
    running.store.txn(fenced(leadership.term)).await.unwrap();
    running.close().await;
    let running = open(config(dir.path())).await;
    let refused = running.store.txn(fenced(leadership.term)).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    running.close().await;
    let closed = running_after_close(dir.path()).await;
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
}

async fn running_after_close(dir: &std::path::Path) -> Result<TxnReply, Error> {
    let running = open(config(dir)).await;
    let store = running.store.clone();
    running.close().await;
    assert!(!store.leadership().borrow().is_self);
    store.txn(Txn::new(SPACE).then(Op::put("a", "1"))).await
}

/// A copy of a live store's directory: what a crash would leave.
fn crashed(dir: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["log", "state"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for file in std::fs::read_dir(dir.join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
        }
    }
    copy
}

/// Changes the bytes of the copy's newest write-ahead log.
fn damage(dir: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let files = std::fs::read_dir(dir.join("log")).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    logs.sort();
    let log = logs.pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    change(&mut bytes);
    std::fs::write(&log, bytes).unwrap();
}

#[tokio::test]
async fn a_torn_end_of_the_log_is_forgotten_and_a_hole_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    for number in 0..50 {
        running.put("a", &format!("{number}")).await;
    }
    let [whole, torn, noisy, flipped] = [(); 4].map(|()| crashed(dir.path()));
    running.close().await;

    damage(torn.path(), |log| log.truncate(log.len() - 3));
    damage(noisy.path(), |log| log.extend_from_slice(&[0x5a; 40]));
    damage(flipped.path(), |log| {
        let middle = log.len() / 2;
        log[middle] ^= 1;
    });
    for (copy, least) in [(&whole, 51), (&noisy, 51), (&torn, 50)] {
        let running = open(config(copy.path())).await;
        let revision = running.store.view(SPACE).revision();
        assert!(revision >= least, "{revision} of {least}");
        assert_eq!(running.put("a", "more").await, revision + 1);
        running.close().await;
    }
    let tasks = Tasks::new();
    let refused = Store::open(config(flipped.path()), &tasks).await.map(|_| ());
    assert!(refused.is_err(), "acknowledged entries behind a hole would be lost in silence");
    tasks.shutdown().await;
}

#[tokio::test]
async fn a_flipped_bit_in_a_stored_row_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    running.put("a", "1").await;
    running.close().await;
    let disk = disk::Disk::open(dir.path()).unwrap();
    let mut batch = disk::Batch::default();
    let row = rows::Row::Put(rows::Table::State, b"\x01a".to_vec(), b"\x01\x00garbage".to_vec());
    disk.add(&mut batch, row);
    disk.write_state(batch).unwrap();
    disk.flush_state().unwrap();
    drop(disk);
    let tasks = Tasks::new();
    let refused = Store::open(config(dir.path()), &tasks).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    tasks.shutdown().await;
}

/// Moves the closed store's state ahead of its log, as a snapshot's installation does first.
fn install_ahead(dir: &std::path::Path, announce: bool) {
    let disk = Arc::new(disk::Disk::open(dir).unwrap());
    let mut loader = rows::Loader::default();
    disk.load(&mut loader).unwrap();
    let mut state = loader.finish().unwrap().unwrap();
    let members = raft::storage::decode_members(&state.members).unwrap();
    let at = (state.index, state.term);
    let log = raft::storage::LogStore::load(disk.clone(), members, at).unwrap();
    state.index += 1_000;
    if announce {
        log.announce_install((state.index, state.term)).unwrap();
    }
    let mut batch = disk::Batch::default();
    rows::all(&state, |row| disk.add(&mut batch, row));
    disk.write_state(batch).unwrap();
    disk.flush_state().unwrap();
}

#[tokio::test]
async fn an_interrupted_snapshot_is_finished_and_a_lost_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(config(dir.path())).await;
    running.put("a", "1").await;
    running.close().await;
    install_ahead(dir.path(), true);
    for expected in [3, 4] {
        let running = open(config(dir.path())).await;
        assert!(running.store.stats().applied_index > 1_000);
        assert_eq!(running.put("a", "2").await, expected);
        running.close().await;
    }
    install_ahead(dir.path(), false);
    let tasks = Tasks::new();
    let refused = Store::open(config(dir.path()), &tasks).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let refused = Store::open(config(dir.path()), &tasks).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    tasks.shutdown().await;
}
