//! The leader proposes the deletion of keys whose time has come.
//!
//! Why a proposal: apply reads no clock, so every member deletes at the same log entry. The
//! deletion names the revision it saw: a key renewed meanwhile stays.

use std::time::Duration;

use super::error::Error;
use super::txn::{Compare, Op, Txn};
use super::{Leadership, Store};
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::{RESTART, Tasks};

/// Most keys deleted in one go.
const KEYS_PER_PASS_MAX: usize = 500;
/// Longest sleep before the wall clock is looked at again: it may jump.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// Starts the task that expires keys.
pub(super) fn spawn(store: &Store, clock: SharedClock, tasks: &Tasks) {
    let store = store.clone();
    tasks.spawn("store expiry", RESTART, move |stop| {
        let (store, clock) = (store.clone(), clock.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                end = run(&store, &clock) => end.map_err(anyhow::Error::from),
            }
        }
    });
}

async fn run(store: &Store, clock: &SharedClock) -> Result<(), Error> {
    let mut leadership = store.leadership();
    loop {
        let leads = leadership.wait_for(|leadership| leadership.is_self).await;
        let Leadership { term, .. } = *leads.map_err(|_| Error::Closed)?;
        let now = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
        if pass(store, term, now).await? {
            continue;
        }
        let sleep = match store.shared.expiry.next() {
            Some(at) => Duration::from_millis(at.saturating_sub(now)).min(SLEEP_MAX),
            None => Duration::MAX,
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = store.shared.expiry.sooner.notified() => {}
            changed = leadership.changed() => changed.map_err(|_| Error::Closed)?,
        }
    }
}

/// Deletes what is due; whether there was anything.
async fn pass(store: &Store, term: u64, now: u64) -> Result<bool, Error> {
    let due = store.shared.expiry.due(now, KEYS_PER_PASS_MAX);
    let deletions = due.into_iter().filter_map(|(keyspace, key)| {
        let entry = store.view(keyspace).get(&key)?;
        let equals = entry.mod_revision;
        let txn = Txn::new(keyspace)
            .when(Compare::ModRevision { key: key.clone(), equals })
            .then(Op::Delete { key })
            .in_term(term);
        Some(store.txn(txn))
    });
    let outcomes = futures::future::join_all(deletions).await;
    let any = !outcomes.is_empty();
    for outcome in outcomes {
        match outcome {
            // Another leader's work from here on.
            Ok(_) | Err(Error::Fenced { .. } | Error::NotLeader { .. } | Error::Unknown) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(any)
}
