//! Tests of the state machine: equal members, rows, old revisions, compares, fences, slots.
//!
//! Why a file of its own: apply is read often, its tests seldom.

use super::super::rows::{self, Loader, Row, Table};
use super::*;

const SPACE: Keyspace = Keyspace::Kubernetes;

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Applies one transaction as the next log entry of term 1.
fn run(state: &mut State, txn: Txn) -> Result<TxnReply, Error> {
    run_in(state, 1, txn)
}

fn run_in(state: &mut State, term: u64, txn: Txn) -> Result<TxnReply, Error> {
    let command = Command { compact: Vec::new(), txns: vec![txn] };
    let mut applied = Applied::default();
    apply(state, (state.index + 1, term), Some(command), &mut applied);
    applied.outcomes.remove(0)
}

fn put(state: &mut State, name: &str, value: &str) -> u64 {
    let op = Op::put(name.to_owned(), value.to_owned());
    run(state, Txn::new(SPACE).then(op)).unwrap().revision
}

fn compact(state: &mut State, revision: u64) {
    let command = Command { compact: vec![(SPACE, revision)], txns: Vec::new() };
    apply(state, (state.index + 1, 1), Some(command), &mut Applied::default());
}

fn bytes(state: &State) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    rows::all(state, |row| match row {
        Row::Put(table, key, value) => all.push((table, key, value)),
        _ => panic!("a state is only puts"),
    });
    all
}

fn reload(state: &State) -> State {
    let mut loader = Loader::default();
    for (table, key, value) in bytes(state) {
        loader.row(table, &key, &value).unwrap();
    }
    loader.finish().unwrap().unwrap()
}

/// Arbitrary commands from a seed, of every kind, on few keys.
fn commands(seed: u64, count: usize) -> Vec<Command> {
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut commands = Vec::new();
    for number in 0..count as u64 {
        let mut command = Command::default();
        if next(10) == 0 {
            command.compact.push((SPACE, number / 2));
        }
        for _ in 0..next(4) {
            let mut txn = Txn::new(Keyspace::ALL[next(3) as usize]);
            let name = |n: u64| key(&format!("k/{n}"));
            txn.request_id = (next(5) == 0).then(|| u128::from(next(30)));
            txn.term = (next(10) == 0).then_some(2);
            if next(2) == 0 {
                let equals = next(4) * next(20);
                txn = txn.when(Compare::ModRevision { key: name(next(8)), equals });
            }
            for _ in 0..next(4) {
                let op = match next(5) {
                    0 => Op::Delete { key: name(next(8)) },
                    1 => Op::DeleteRange { range: KeyRange::between("k/2", "k/4") },
                    2 => Op::Get { key: name(next(8)) },
                    _ => Op::Put {
                        key: name(next(8)),
                        value: key(&format!("value {number}")),
                        slot: (next(2) == 0).then_some(3),
                        expires_at_ms: (next(3) == 0).then_some(number),
                    },
                };
                txn = if next(4) == 0 { txn.otherwise(op) } else { txn.then(op) };
            }
            command.txns.push(txn);
        }
        commands.push(command);
    }
    commands
}

#[test]
fn two_members_with_the_same_log_are_byte_equal_also_across_a_restart() {
    for seed in 0..20 {
        let (mut left, mut right) = (State::default(), State::default());
        for (number, command) in commands(seed, 200).into_iter().enumerate() {
            let position = (number as u64 + 1, 1);
            let (mut one, mut two) = (Applied::default(), Applied::default());
            apply(&mut left, position, Some(command.clone()), &mut one);
            apply(&mut right, position, Some(command), &mut two);
            assert_eq!(one.events, two.events);
            if number % 17 == 0 {
                right = reload(&right);
            }
        }
        assert_eq!(bytes(&left), bytes(&right), "seed {seed}");
        assert!(reload(&left) == left, "seed {seed}");
    }
}

#[test]
fn rows_of_changes_add_up_to_the_rows_of_the_whole() {
    let mut state = State::default();
    let mut disk = std::collections::BTreeMap::new();
    for (number, command) in commands(7, 300).into_iter().enumerate() {
        let mut applied = Applied::default();
        apply(&mut state, (number as u64 + 1, 1), Some(command), &mut applied);
        rows::changed(&state, &applied, |row| match row {
            Row::Put(table, key, value) => {
                disk.insert((table, key), value);
            }
            Row::Delete(table, key) => {
                disk.remove(&(table, key));
            }
            Row::DeleteRange(table, from, to) => {
                disk.retain(|(t, key), _| *t != table || *key < from || *key >= to);
            }
        });
    }
    let mut whole = bytes(&state);
    whole.sort();
    let disk: Vec<_> = disk.into_iter().map(|((t, key), value)| (t, key, value)).collect();
    assert_eq!(disk, whole);
}

#[test]
fn every_kept_revision_reads_as_it_was() {
    let mut state = State::default();
    let mut seen = vec![(1, state.space(SPACE).map.clone())];
    for round in 0..30 {
        let name = format!("k{}", round % 7);
        let txn = match round % 5 {
            4 => Txn::new(SPACE).then(Op::delete(name)),
            _ => Txn::new(SPACE).then(Op::put(name, format!("{round}"))),
        };
        let revision = run(&mut state, txn).unwrap().revision;
        seen.push((revision, state.space(SPACE).map.clone()));
    }
    for (revision, map) in &seen {
        assert!(state.space(SPACE).map_at(*revision) == *map, "revision {revision}");
    }
    compact(&mut state, 12);
    assert_eq!(state.space(SPACE).compacted, 12);
    for (revision, map) in seen.iter().filter(|(revision, _)| *revision >= 12) {
        assert!(state.space(SPACE).map_at(*revision) == *map, "revision {revision}");
    }
    let kept: usize = state.space(SPACE).history.values().map(Event::weight).sum();
    assert_eq!(state.space(SPACE).history_bytes, kept);
}

#[test]
fn each_changed_key_takes_a_revision_and_nothing_else_does() {
    let mut state = State::default();
    let txn = Txn::new(SPACE).then(Op::put("a", "1")).then(Op::put("b", "1"));
    assert_eq!(run(&mut state, txn.clone()).unwrap().revision, 3);
    assert_eq!(run(&mut state, Txn::new(SPACE).then(Op::delete("c"))).unwrap().revision, 3);
    let all = Txn::new(SPACE).then(Op::DeleteRange { range: KeyRange::all() });
    assert_eq!(run(&mut state, all.clone()).unwrap().revision, 5);
    assert_eq!(run(&mut state, all).unwrap().revision, 5);
    let etcd = Txn { keyspace: Keyspace::Etcd, ..txn };
    assert_eq!(run(&mut state, etcd).unwrap().revision, 2);
    assert_eq!(state.space(Keyspace::Etcd).history.len(), 2);
    assert_eq!(state.space(SPACE).revision, 5);
}

#[test]
fn versions_count_writes_since_creation() {
    let mut state = State::default();
    put(&mut state, "a", "1");
    put(&mut state, "a", "2");
    let entry = state.space(SPACE).map.get(&b"a"[..]).unwrap().clone();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (2, 3, 2));
    run(&mut state, Txn::new(SPACE).then(Op::delete("a"))).unwrap();
    put(&mut state, "a", "3");
    let entry = state.space(SPACE).map.get(&b"a"[..]).unwrap().clone();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (5, 5, 1));
}

#[test]
fn failed_compares_take_the_other_branch_and_name_what_is_there() {
    let mut state = State::default();
    put(&mut state, "a", "1");
    let txn = Txn::new(SPACE)
        .when(Compare::ModRevision { key: key("a"), equals: 9 })
        .when(Compare::ModRevision { key: key("b"), equals: 0 })
        .when(Compare::RangeEmpty { range: KeyRange::prefix("a") })
        .then(Op::put("a", "2"))
        .otherwise(Op::Get { key: key("a") });
    let reply = run(&mut state, txn).unwrap();
    assert!(!reply.succeeded);
    assert_eq!(reply.revision, 2);
    let current = state.space(SPACE).map.get(&b"a"[..]).cloned();
    assert_eq!(reply.conflicts, [(key("a"), current.clone()), (key("a"), current.clone())]);
    assert_eq!(reply.results, [OpResult::Get { entry: current }]);
    let holds = Txn::new(SPACE)
        .when(Compare::Value { key: key("a"), equals: key("1") })
        .when(Compare::Version { key: key("a"), equals: 1 })
        .when(Compare::CreateRevision { key: key("a"), equals: 2 })
        .then(Op::put("a", "2"));
    assert!(run(&mut state, holds).unwrap().succeeded);
}

#[test]
fn a_transaction_of_another_term_changes_nothing() {
    let mut state = State::default();
    let txn = Txn::new(SPACE).then(Op::put("a", "1")).in_term(3);
    let refused = run_in(&mut state, 4, txn.clone());
    assert!(matches!(refused, Err(Error::Fenced { expected: 3, current: 4 })));
    assert_eq!(state.space(SPACE).revision, 1);
    assert_eq!(run_in(&mut state, 3, txn).unwrap().revision, 2);
}

#[test]
fn a_repeated_request_changes_nothing_until_its_id_is_forgotten() {
    let mut state = State::default();
    let mut txn = Txn::new(SPACE).then(Op::put("a", "1"));
    txn.request_id = Some(7);
    let first = run(&mut state, txn.clone()).unwrap();
    let second = run(&mut state, txn.clone()).unwrap();
    assert_eq!((first.revision, first.repeated), (2, false));
    assert_eq!((second.revision, second.repeated, second.succeeded), (2, true, true));
    for id in 0..REQUESTS_KEPT_MAX as u128 {
        let mut other = Txn::new(SPACE);
        other.request_id = Some(1_000 + id);
        run(&mut state, other).unwrap();
    }
    assert_eq!(state.requests.len(), REQUESTS_KEPT_MAX);
    assert!(!run(&mut state, txn).unwrap().repeated);
}

#[test]
fn the_slot_holds_the_revision_also_when_it_grows_a_digit() {
    let mut state = State::default();
    let with_slot = |slot| {
        Txn::new(SPACE).then(Op::Put {
            key: key("a"),
            value: key(r#"{"rv":""}"#),
            slot: Some(slot),
            expires_at_ms: None,
        })
    };
    for revision in 2..=12 {
        let reply = run(&mut state, with_slot(7)).unwrap();
        let OpResult::Put { entry, prev } = &reply.results[0] else { panic!("not a put") };
        assert_eq!(entry.value, format!(r#"{{"rv":"{revision}"}}"#));
        assert_eq!(prev.is_some(), revision > 2);
    }
    let entry = state.space(SPACE).map.get(&b"a"[..]).unwrap();
    assert_eq!(entry.value_at_revision(9), r#"{"rv":"9"}"#);
    assert_eq!(entry.value_at_revision(1_000), r#"{"rv":"1000"}"#);
    assert!(matches!(run(&mut state, with_slot(10)), Err(Error::Invalid(_))));
    assert_eq!(state.space(SPACE).revision, 12);
}

#[test]
fn a_row_that_does_not_fit_the_rest_is_found() {
    let mut state = State::default();
    put(&mut state, "a", "1");
    put(&mut state, "a", "2");
    let load = |skip: Table| {
        let mut loader = Loader::default();
        for (table, key, value) in bytes(&state) {
            if table != skip {
                loader.row(table, &key, &value).unwrap();
            }
        }
        loader.finish()
    };
    assert!(matches!(load(Table::Meta), Err(Error::Corrupt(_))));
    assert!(matches!(load(Table::State), Err(Error::Corrupt(_))));
}
