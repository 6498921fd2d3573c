//! The store under kill -9: nothing acknowledged is lost, revisions never go back, watches resume.
//!
//! How: this test binary runs itself as a child that writes, watches, and tells each acknowledged
//! write and each event on a pipe; the parent kills it after a number of acknowledgements that
//! differs per round, opens the directory itself, and compares. Why not a simulated crash: the
//! claim is about what RocksDB and the kernel were told, in a real process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clusterd::stdx::tasks::Tasks;
use clusterd::store::{Config, EventKind, KeyRange, Keyspace, Op, OpResult, Store, Txn};

const ROUNDS: u64 = 50;
const WRITERS: u64 = 8;
const KEYS_PER_WRITER: u64 = 10;
/// Numbers that a writer may use in a round.
const ROUND_SPAN: u64 = 1_000_000;
const DIR_VARIABLE: &str = "CLUSTERD_TEST_STORE_DIR";
const ROUND_VARIABLE: &str = "CLUSTERD_TEST_STORE_ROUND";
const AFTER_VARIABLE: &str = "CLUSTERD_TEST_STORE_AFTER";

/// Bounds so tight that flushes and log cuts happen all the time.
fn config(dir: &Path) -> Config {
    Config {
        cluster_id: "killed".to_owned(),
        log_entries_max: 200,
        log_bytes_max: 128 * 1024,
        ballast_bytes: 0,
        tick: std::time::Duration::from_millis(10),
        ..Config::new(dir)
    }
}

/// What a writer's `n`th operation does, known to both sides.
fn operation(writer: u64, n: u64) -> (String, Option<String>) {
    let key = format!("w{writer}/{}", n % KEYS_PER_WRITER);
    let value =
        (!n.is_multiple_of(7)).then(|| format!("{writer}:{n}:{}@", "x".repeat((n % 400) as usize)));
    (key, value)
}

fn transaction(writer: u64, n: u64) -> Txn {
    let (key, value) = operation(writer, n);
    let op = match value {
        Some(value) => Op::Put {
            key: key.into(),
            slot: Some(value.len() as u32),
            value: value.into(),
            expires_at_ms: None,
        },
        None => Op::delete(key),
    };
    Txn::new(Keyspace::Kubernetes).then(op)
}

fn say(line: String) {
    // One write per line, so that a kill tears at most the last one.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}

/// Not a test by itself: the child of the one below.
#[test]
fn writer_child() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (round, after) = (number(ROUND_VARIABLE), number(AFTER_VARIABLE));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let tasks = Tasks::new();
        let store = Store::open(config(Path::new(&dir)), &tasks).await.unwrap();
        let mut watcher = store.watch(Keyspace::Kubernetes, KeyRange::all(), after).unwrap();
        tasks.spawn_once("watch", async move {
            while let Some(events) = watcher.next().await {
                for event in events.unwrap() {
                    let key = String::from_utf8_lossy(&event.entry.key).into_owned();
                    let kind = if event.kind == EventKind::Put { "put" } else { "delete" };
                    say(format!("\nevent {} {kind} {key}\n", event.revision));
                }
            }
        });
        for writer in 0..WRITERS {
            let store = store.clone();
            tasks.spawn_once(format!("writer {writer}"), async move {
                for n in round * ROUND_SPAN.. {
                    let Ok(reply) = store.txn(transaction(writer, n)).await else { return };
                    let revision = match &reply.results[0] {
                        OpResult::Put { entry, .. } => entry.mod_revision,
                        OpResult::Delete { prev: Some(_) } => reply.revision,
                        _ => 0,
                    };
                    say(format!("\nack {writer} {n} {revision}\n"));
                }
            });
        }
        tasks.stop_token().cancelled().await;
        say(format!("\nfailed {}\n", tasks.failure().unwrap_or_default()));
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the parent knows.
#[derive(Default)]
struct Known {
    /// What each key held when the directory was last looked at.
    keys: BTreeMap<String, String>,
    /// The last acknowledged number of each writer in this round.
    acked: BTreeMap<u64, u64>,
    /// Acknowledged revisions and their keys, until the watch has shown them.
    unseen: BTreeMap<u64, String>,
    /// The last revision that the watch has shown.
    watched: u64,
    acks: u64,
    /// Why the child's store ended by itself.
    failure: Option<String>,
}

impl Known {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().unwrap();
        match words[..] {
            ["ack", writer, n, revision] => {
                let (writer, n, revision) = (number(writer), number(n), number(revision));
                self.acked.insert(writer, n);
                self.acks += 1;
                if revision > self.watched {
                    self.unseen.insert(revision, operation(writer, n).0);
                }
            }
            ["event", revision, _, key] => {
                let revision = number(revision);
                assert_eq!(revision, self.watched + 1, "the watch skipped or went back");
                self.watched = revision;
                if let Some(expected) = self.unseen.remove(&revision) {
                    assert_eq!(expected, key, "another change at revision {revision}");
                }
            }
            ["failed", ..] => self.failure = Some(line.to_owned()),
            _ => {}
        }
    }

    /// Applies what was acknowledged, then what one write under way may have done; anything else
    /// that the store holds is wrong.
    fn compare(&mut self, round: u64, found: &BTreeMap<String, String>) {
        let mut expected = self.keys.clone();
        let mut perhaps: BTreeMap<String, Option<String>> = BTreeMap::new();
        for writer in 0..WRITERS {
            let first = round * ROUND_SPAN;
            let next = self.acked.get(&writer).map_or(first, |last| last + 1);
            for (key, value) in (first..next).map(|n| operation(writer, n)) {
                match value {
                    Some(value) => expected.insert(key, value),
                    None => expected.remove(&key),
                };
            }
            let (key, value) = operation(writer, next);
            perhaps.insert(key, value);
        }
        for key in (0..WRITERS).flat_map(|w| (0..KEYS_PER_WRITER).map(move |k| format!("w{w}/{k}")))
        {
            let (found, expected) = (found.get(&key), expected.get(&key));
            let under_way = perhaps.get(&key).is_some_and(|value| value.as_ref() == found);
            assert!(
                found == expected || under_way,
                "round {round}, {key}: found {found:?}, acknowledged {expected:?}"
            );
        }
        self.keys = found.clone();
        self.acked.clear();
    }
}

/// The keys on disk, their slots checked and cut off, and the revision.
async fn look(dir: &Path) -> (BTreeMap<String, String>, u64) {
    let tasks = Tasks::new();
    let store = Store::open(config(dir), &tasks).await.unwrap();
    let view = store.linearizable_view(Keyspace::Kubernetes).await.unwrap();
    let mut found = BTreeMap::new();
    for entry in view.range(&KeyRange::all(), None) {
        let text = String::from_utf8(entry.value.to_vec()).unwrap();
        let (value, digits) = text.split_once('@').unwrap();
        assert_eq!(digits, entry.mod_revision.to_string());
        found.insert(String::from_utf8(entry.key.to_vec()).unwrap(), format!("{value}@"));
    }
    tasks.shutdown().await;
    assert_eq!(tasks.failure(), None);
    (found, view.revision())
}

fn start(mut command: Command, dir: &Path, round: u64, watched: u64) -> Killed {
    command
        .args(["store::writer_child", "--exact", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .env(ROUND_VARIABLE, round.to_string())
        .env(AFTER_VARIABLE, watched.to_string())
        .stdout(Stdio::piped());
    Killed(command.spawn().unwrap())
}

/// A limit on the size of files makes the log's writes fail, as a broken disk would.
#[test]
fn a_failed_write_ends_the_store_at_once_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut known = Known { watched: 1, ..Known::default() };
    for round in 0..2 {
        let mut command = Command::new("sh");
        // Blocks of 512 bytes; with the signal ignored, the write gets an error.
        command.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""]);
        command.arg(std::env::current_exe().unwrap());
        let mut child = start(command, dir.path(), round, known.watched);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        lines.for_each(|line| known.line(&line.unwrap()));
        let failure = known.failure.take().expect("the store ends when its disk fails");
        assert!(failure.contains("File too large"), "{failure}");
        drop(child);
        let (found, now) = runtime.block_on(look(dir.path()));
        assert!(now >= known.watched);
        known.compare(round, &found);
    }
    assert!(known.acks > 100);
}

#[test]
fn fifty_kills_lose_nothing_acknowledged_and_watches_resume() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut known = Known { watched: 1, ..Known::default() };
    let mut revision = 1;
    for round in 0..ROUNDS {
        let command = Command::new(std::env::current_exe().unwrap());
        let mut child = start(command, dir.path(), round, known.watched);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap());
        let enough = known.acks + 20 + (round * 7919) % 700;
        let mut line = String::new();
        let mut killed = false;
        while lines.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') {
                known.line(line.trim_end());
            }
            line.clear();
            if known.acks >= enough && !killed {
                killed = true;
                child.0.kill().unwrap();
            }
        }
        assert!(killed, "round {round}: the child ended by itself");
        drop(child);
        let (found, now) = runtime.block_on(look(dir.path()));
        let acked = known.unseen.keys().next_back().copied().unwrap_or(0).max(known.watched);
        assert!(now >= acked.max(revision), "round {round}: revision {now} after {acked}");
        revision = now;
        known.compare(round, &found);
    }
    assert!(known.acks > ROUNDS * 20);
}
