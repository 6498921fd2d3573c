//! Three members in one process: the code of one member is the code of many.
//!
//! Why now, with a single master in service: what would have to be rewritten for three must show
//! up while it is cheap. The network is a table of handles; a cut member reaches nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

const SPACE: Keyspace = Keyspace::Kubernetes;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Network {
    members: Mutex<BTreeMap<u64, Store>>,
    cut: Mutex<BTreeSet<u64>>,
    /// Messages to this member are kept back.
    paused: Mutex<Option<u64>>,
    held: tokio::sync::watch::Sender<Vec<Vec<u8>>>,
}

struct Wire {
    from: u64,
    network: Arc<Network>,
}

impl Transport for Wire {
    fn send(&self, to: u64, message: Vec<u8>) -> bool {
        let cut = self.network.cut.lock();
        if cut.contains(&self.from) || cut.contains(&to) {
            return false;
        }
        if *self.network.paused.lock() == Some(to) {
            self.network.held.send_modify(|held| held.push(message));
            return true;
        }
        let target = self.network.members.lock().get(&to).cloned();
        target.is_some_and(|store| store.deliver(&message).is_ok())
    }
}

struct Group {
    network: Arc<Network>,
    tasks: Tasks,
}

impl Group {
    async fn start(dir: &Path, change: impl Fn(&mut Config)) -> Self {
        let (network, tasks) = (Arc::new(Network::default()), Tasks::new());
        for id in 1..=3 {
            let wire = Wire { from: id, network: network.clone() };
            let mut config = Config {
                node_id: id,
                cluster_id: "group".to_owned(),
                voters: vec![1, 2, 3],
                transport: Some(Arc::new(wire)),
                ballast_bytes: 0,
                tick: Duration::from_millis(20),
                txn_timeout: PATIENCE,
                ..Config::new(dir.join(id.to_string()))
            };
            change(&mut config);
            let store = Store::open(config, &tasks).await.unwrap();
            network.members.lock().insert(id, store);
        }
        Self { network, tasks }
    }

    fn member(&self, id: u64) -> Store {
        self.network.members.lock()[&id].clone()
    }

    /// The leader that a member of `among` follows, once it leads.
    async fn leader(&self, among: &[u64]) -> (u64, Store) {
        let waits = among.iter().map(|id| {
            let (id, store) = (*id, self.member(*id));
            Box::pin(async move {
                store.leadership().wait_for(|known| known.is_self).await.unwrap();
                (id, store)
            })
        });
        let found = futures::future::select_all(waits);
        tokio::time::timeout(PATIENCE, found).await.expect("a leader").0
    }

    async fn end(self) {
        self.tasks.shutdown().await;
        assert_eq!(self.tasks.failure(), None);
        self.network.members.lock().clear();
    }
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    let op = Op::put(key.to_owned(), value.to_owned());
    store.txn(Txn::new(SPACE).then(op)).await.expect("put").revision
}

/// Every row that a member would write.
fn bytes(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    rows::all(&store.shared.state.load(), |row| {
        if let rows::Row::Put(_, key, value) = row {
            all.push((key, value));
        }
    });
    all
}

async fn same_position(left: &Store, right: &Store) {
    let index = left.shared.state.load().index;
    let mut applied = right.shared.applied.subscribe();
    let reached = applied.wait_for(|applied| *applied >= index);
    tokio::time::timeout(PATIENCE, reached).await.expect("catches up").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_holds_the_same_bytes_and_answers_linearizable_reads() {
    let dir = tempfile::tempdir().unwrap();
    let group = Group::start(dir.path(), |_| {}).await;
    let (id, leader) = group.leader(&[1, 2, 3]).await;
    for number in 0..20 {
        put(&leader, &format!("k{}", number % 7), &format!("{number}")).await;
        for follower in (1..=3).filter(|other| *other != id).map(|other| group.member(other)) {
            let view = follower.linearizable_view(SPACE).await.unwrap();
            assert_eq!(view.revision(), number + 2);
        }
    }
    assert!(leader.linearizable_view(SPACE).await.is_ok());
    for follower in (1..=3).filter(|other| *other != id).map(|other| group.member(other)) {
        same_position(&leader, &follower).await;
        assert_eq!(bytes(&leader), bytes(&follower));
        let refused = follower.txn(Txn::new(SPACE).then(Op::put("k", "v"))).await;
        assert!(matches!(refused, Err(Error::NotLeader { leader: Some(l) }) if l == id));
    }
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_neither_writes_nor_answers_stale_reads() {
    let dir = tempfile::tempdir().unwrap();
    let quick = |config: &mut Config| config.read_timeout = Duration::from_millis(500);
    let group = Group::start(dir.path(), quick).await;
    let (old_id, old) = group.leader(&[1, 2, 3]).await;
    put(&old, "a", "before").await;
    let old_term = old.leadership().borrow().term;
    group.network.cut.lock().insert(old_id);
    let lost = old.txn(Txn::new(SPACE).then(Op::put("a", "lost")));
    let others: Vec<u64> = (1..=3).filter(|other| *other != old_id).collect();
    let (lost, (_, new)) = tokio::join!(lost, group.leader(&others));
    assert!(matches!(lost, Err(Error::Unknown)), "{lost:?}");
    let revision = put(&new, "a", "after").await;
    assert_eq!(old.view(SPACE).get(b"a").unwrap().value, "before");
    let stale = old.linearizable_view(SPACE).await;
    assert!(matches!(stale, Err(Error::Timeout)), "{stale:?}");
    let fenced = Txn::new(SPACE).then(Op::put("a", "fenced")).in_term(old_term);
    assert!(matches!(new.txn(fenced).await, Err(Error::Fenced { .. })));
    group.network.cut.lock().clear();
    old.wait_applied(SPACE, revision, PATIENCE).await.unwrap();
    assert_eq!(old.view(SPACE).get(b"a").unwrap().value, "after");
    same_position(&new, &old).await;
    assert_eq!(bytes(&new), bytes(&old));
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_log_has_left_behind_gets_a_snapshot_and_its_watchers_skip_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let short = |config: &mut Config| config.log_entries_max = 20;
    let group = Group::start(dir.path(), short).await;
    let (id, leader) = group.leader(&[1, 2, 3]).await;
    put(&leader, "k", "first").await;
    let behind_id = (1..=3).find(|other| *other != id).unwrap();
    let behind = group.member(behind_id);
    behind.wait_applied(SPACE, 2, PATIENCE).await.unwrap();
    let mut watcher = behind.watch(SPACE, KeyRange::all(), 0).unwrap();
    group.network.cut.lock().insert(behind_id);
    let last = behind.shared.state.load().index;
    let mut revision = 2;
    while leader.stats().log_first_index <= last + 1 {
        revision = put(&leader, &format!("k{}", revision % 5), "more").await;
    }
    group.network.cut.lock().clear();
    behind.wait_applied(SPACE, revision, PATIENCE).await.unwrap();
    let mut expected = 3;
    while expected <= revision {
        for event in watcher.next().await.unwrap().unwrap() {
            assert_eq!(event.revision, expected);
            expected += 1;
        }
    }
    let leader = group.leader(&[1, 2, 3]).await.1;
    revision = put(&leader, "k", "last").await;
    behind.wait_applied(SPACE, revision, PATIENCE).await.unwrap();
    same_position(&leader, &behind).await;
    assert_eq!(bytes(&leader), bytes(&behind));
    group.end().await;
}

/// etcd#20418: acknowledgements of a read that was asked before a pause must not confirm one that
/// was asked after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_acknowledgements_do_not_confirm_a_later_read() {
    use super::raft::{Message, MessageType};
    use prost::Message as _;

    let dir = tempfile::tempdir().unwrap();
    // Member 1's clock stands still: a leader whose process is paused.
    let still = |config: &mut Config| {
        config.read_timeout = Duration::from_secs(3);
        if config.node_id == 1 {
            config.tick = Duration::from_secs(3600);
        }
    };
    let group = Group::start(dir.path(), still).await;
    let (first, leader) = group.leader(&[2, 3]).await;
    let revision = put(&leader, "a", "before").await;
    let paused = group.member(1);
    paused.wait_applied(SPACE, revision, PATIENCE).await.unwrap();
    let term = paused.leadership().borrow().term;
    let mut take_over = Message { to: 1, from: first, term, ..Message::default() };
    take_over.set_msg_type(MessageType::MsgTimeoutNow);
    paused.deliver(&take_over.encode_to_vec()).unwrap();
    let (id, _) = group.leader(&[1]).await;
    assert_eq!(id, 1);
    let term = paused.leadership().borrow().term;

    *group.network.paused.lock() = Some(1);
    let mut held = group.network.held.subscribe();
    let decode = |bytes: &Vec<u8>| Message::decode(&bytes[..]).unwrap();
    let acknowledges = move |bytes: &Vec<u8>| {
        let message = decode(bytes);
        let kind = message.get_msg_type() == MessageType::MsgHeartbeatResponse;
        kind && message.term == term && !message.context.is_empty()
    };
    let early = paused.linearizable_view(SPACE);
    let enough = async {
        let two = |held: &Vec<Vec<u8>>| held.iter().filter(|m| acknowledges(m)).count() == 2;
        tokio::time::timeout(PATIENCE, held.wait_for(two)).await.unwrap().unwrap().clone()
    };
    let later = async {
        let acknowledgements = enough.await;
        let (_, new) = group.leader(&[2, 3]).await;
        put(&new, "a", "after").await;
        // The question goes in first, the acknowledgements of the earlier one behind it.
        let replay = async {
            for message in acknowledgements.iter().filter(|message| acknowledges(message)) {
                paused.deliver(message).unwrap();
            }
        };
        tokio::join!(paused.linearizable_view(SPACE), replay).0
    };
    let (early, later) = tokio::join!(early, later);
    let value = |view: View| view.get(b"a").unwrap().value.clone();
    assert_eq!(early.map(value).unwrap(), "before", "asked before the other write");
    assert!(matches!(later, Err(Error::Timeout)), "{later:?}");
    group.end().await;
}
