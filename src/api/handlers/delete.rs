//! DELETE: at once, with grace, or when the finalizers are done.
//!
//! Why as a plan and then one transaction: whether an object goes or only begins to go depends on
//! its state, so both are decided on the very revision that the transaction expects.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::admit::Admission;
use super::convert;
use super::write::{self, Written};
use crate::api::admission::Operation;
use crate::api::data::{Change, Outcome};
use crate::api::metadata::{FOREGROUND, ORPHAN};
use crate::api::server::Call;
use crate::client::{DeleteOptions, Propagation};
use crate::object::status::{Result, Status};
use crate::object::{Gvr, Value, meta, time};
use crate::stdx::limits::PATCH_ATTEMPTS_MAX;
use crate::store::Entry;

/// What a delete left.
pub enum Deleted {
    /// It is gone; its last state.
    Gone(Box<Value>),
    /// It is still there, marked.
    Ending(Box<Written>),
}

/// Deletes the object that `call` names.
pub async fn delete(call: &Call, options: &DeleteOptions) -> Result<Deleted> {
    let name = call.attributes.name.as_str();
    let key = call.key(name);
    let mut entry = call.api.data.fresh().await?.get(&key);
    for _ in 0..PATCH_ATTEMPTS_MAX {
        let present = entry.ok_or_else(|| Status::not_found(&call.kind.gvr(), name))?;
        match delete_once(call, options, &key, &present).await? {
            Ok(deleted) => return Ok(deleted),
            Err(now) => entry = now,
        }
    }
    Err(Status::stale(&call.kind.gvr(), name))
}

type Again = Option<Arc<Entry>>;

async fn delete_once(
    call: &Call,
    options: &DeleteOptions,
    key: &Bytes,
    entry: &Arc<Entry>,
) -> Result<std::result::Result<Deleted, Again>> {
    let kind = &call.kind;
    let old = Arc::new(convert::value(kind, &entry.value)?);
    check_preconditions(call, options, &old)?;
    let name = call.attributes.name.as_str();
    Admission::new(call, Operation::Delete, name, Some(old.clone()), options.dry_run)
        .without_object()
        .await?;
    let plan = plan(call, options, &old);
    match plan {
        Plan::Remove => {
            if options.dry_run {
                return Ok(Ok(Deleted::Gone(Box::new((*old).clone()))));
            }
            Ok(match write::remove(call, key, entry.mod_revision, &old).await? {
                Outcome::Removed(revision) => {
                    let mut last = (*old).clone();
                    let revision = revision.to_string();
                    meta::set(&mut last, &["metadata", "resourceVersion"], revision);
                    Ok(Deleted::Gone(Box::new(last)))
                }
                Outcome::Conflict(now) => Err(now),
                Outcome::Taken | Outcome::Stored(_) => Err(Some(entry.clone())),
            })
        }
        Plan::Pending => {
            let bytes = convert::bytes(kind, &entry.value)?;
            let value = (*old).clone();
            Ok(Ok(Deleted::Ending(Box::new(Written { value, bytes, created: false }))))
        }
        Plan::Mark(marked) => mark(call, options, key, entry, *marked).await,
    }
}

async fn mark(
    call: &Call,
    options: &DeleteOptions,
    key: &Bytes,
    entry: &Arc<Entry>,
    marked: Value,
) -> Result<std::result::Result<Deleted, Again>> {
    if options.dry_run {
        let bytes = crate::api::body::to_bytes(&marked).into();
        let written = Written { value: marked, bytes, created: false };
        return Ok(Ok(Deleted::Ending(Box::new(written))));
    }
    let stored = convert::stored(&call.kind, marked.clone())?;
    let change = Change {
        key,
        expected: entry.mod_revision,
        value: Some(&stored),
        expires_at_ms: entry.expires_at_ms,
        companions: Vec::new(),
    };
    Ok(match call.api.data.commit(change).await? {
        Outcome::Stored(entry) => {
            let (value, bytes) = convert::written(&call.kind, marked, &entry)?;
            Ok(Deleted::Ending(Box::new(Written { value, bytes, created: false })))
        }
        Outcome::Conflict(now) => Err(now),
        Outcome::Taken | Outcome::Removed(_) => Err(Some(entry.clone())),
    })
}

fn check_preconditions(call: &Call, options: &DeleteOptions, old: &Value) -> Result<()> {
    let gvk = &call.kind.gvk;
    let conflict = |why: String| {
        let named = Gvr::new(gvk.group.clone(), gvk.version.clone(), gvk.kind.clone());
        Err(Status::conflict(&named, meta::name(old), &why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(old)) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object \
             might have been deleted and then recreated",
            meta::uid(old)
        ));
    }
    let version = meta::resource_version(old);
    if let Some(want) = options.resource_version.as_deref().filter(|want| *want != version) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({want}) does not match the ResourceVersion \
             in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

enum Plan {
    /// It goes now.
    Remove,
    /// It is on its way already; nothing changes.
    Pending,
    /// It stays for now, changed like this.
    Mark(Box<Value>),
}

fn plan(call: &Call, options: &DeleteOptions, old: &Value) -> Plan {
    let strategy = &call.kind.strategy;
    let now = call.api.clock.now();
    let mut object = old.clone();
    let asked = options.grace_period_seconds.map(|grace| if grace < 0 { 1 } else { grace });
    let graceful = match grace(&mut object, asked, strategy.grace_seconds(old, asked), now) {
        Grace::None => false,
        Grace::Pending => return Plan::Pending,
        Grace::Seconds(seconds) => seconds > 0,
    };
    let finalizers = finalizers(options.propagation, strategy.default_propagation(), &object);
    if finalizers.iter().map(String::as_str).ne(meta::finalizers(&object)) {
        if finalizers.is_empty() {
            meta::remove(&mut object, &["metadata", "finalizers"]);
        } else {
            meta::set(&mut object, &["metadata", "finalizers"], finalizers.clone());
        }
    }
    let waits = !finalizers.is_empty() || !strategy.may_vanish(&object);
    if !graceful && !waits {
        return Plan::Remove;
    }
    if !graceful {
        mark_as_deleting(&mut object, now);
    }
    strategy.prepare_delete(&call.write(), &mut object);
    if object == *old { Plan::Pending } else { Plan::Mark(Box::new(object)) }
}

#[derive(Debug, PartialEq)]
enum Grace {
    /// The kind knows no grace, or it is over.
    None,
    /// It is being deleted already and this changes nothing.
    Pending,
    /// It was marked to end after so many seconds.
    Seconds(i64),
}

/// Upstream's `rest.BeforeDelete`: a grace that runs may only be shortened.
fn grace(object: &mut Value, asked: Option<i64>, given: Option<i64>, now: Timestamp) -> Grace {
    const STAMP: [&str; 2] = ["metadata", "deletionTimestamp"];
    const SECONDS: [&str; 2] = ["metadata", "deletionGracePeriodSeconds"];
    let Some(given) = given else { return Grace::None };
    if !meta::is_deleting(object) {
        let end = now + jiff::SignedDuration::from_secs(given);
        meta::set(object, &STAMP, time::seconds(end));
        meta::set(object, &SECONDS, given);
        let generation = meta::generation(object);
        if generation > 0 {
            meta::set(object, &["metadata", "generation"], generation + 1);
        }
        return Grace::Seconds(given);
    }
    let running = meta::at(object, &SECONDS).and_then(Value::as_i64).unwrap_or(0);
    if running == 0 {
        return Grace::None;
    }
    let Some(mut period) = asked.filter(|asked| *asked < running) else { return Grace::Pending };
    let end = time::parse(meta::text(object, &STAMP)).unwrap_or(now);
    let mut end = end - jiff::SignedDuration::from_secs(running - period);
    if end < now {
        end = now;
        period = period.min(1);
    }
    meta::set(object, &STAMP, time::seconds(end));
    meta::set(object, &SECONDS, period);
    Grace::Seconds(period)
}

/// The finalizers after a delete with this wish for the dependents.
fn finalizers(
    asked: Option<Propagation>,
    default: Option<Propagation>,
    object: &Value,
) -> Vec<String> {
    let have = meta::finalizers(object);
    let mut kept: Vec<String> = have
        .iter()
        .filter(|one| !matches!(**one, ORPHAN | FOREGROUND))
        .map(|one| (*one).to_owned())
        .collect();
    let Some(default) = default else { return kept };
    let present = have.iter().find_map(|one| match *one {
        ORPHAN => Some(Propagation::Orphan),
        FOREGROUND => Some(Propagation::Foreground),
        _ => None,
    });
    match asked.or(present).unwrap_or(default) {
        Propagation::Background => {}
        Propagation::Orphan => kept.push(ORPHAN.to_owned()),
        Propagation::Foreground => kept.push(FOREGROUND.to_owned()),
    }
    kept
}

fn mark_as_deleting(object: &mut Value, now: Timestamp) {
    let stamp = time::parse(meta::text(object, &["metadata", "deletionTimestamp"]));
    let generation = meta::generation(object);
    if stamp.is_none() && generation > 0 {
        meta::set(object, &["metadata", "generation"], generation + 1);
    }
    if stamp.is_none_or(|stamp| stamp > now) {
        meta::set(object, &["metadata", "deletionTimestamp"], time::seconds(now));
    }
    meta::set(object, &["metadata", "deletionGracePeriodSeconds"], 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_running_grace_can_only_be_shortened() {
        let mut pod = json!({"metadata": {"generation": 1}});
        assert_eq!(grace(&mut pod, None, Some(30), at(0)), Grace::Seconds(30));
        assert_eq!(pod["metadata"]["deletionTimestamp"], time::seconds(at(30)));
        assert_eq!(pod["metadata"]["generation"], 2);
        assert_eq!(grace(&mut pod, Some(60), Some(60), at(1)), Grace::Pending);
        assert_eq!(grace(&mut pod, None, Some(30), at(1)), Grace::Pending);
        assert_eq!(grace(&mut pod, Some(10), Some(10), at(1)), Grace::Seconds(10));
        assert_eq!(pod["metadata"]["deletionTimestamp"], time::seconds(at(10)));
        assert_eq!(grace(&mut pod, Some(0), Some(0), at(20)), Grace::Seconds(0));
        assert_eq!(pod["metadata"]["deletionTimestamp"], time::seconds(at(20)));
        assert_eq!(grace(&mut pod, None, Some(30), at(21)), Grace::None);
    }

    #[test]
    fn a_wish_for_dependents_becomes_a_finalizer() {
        let object = json!({"metadata": {"finalizers": ["orphan", "x/y"]}});
        let background = Some(Propagation::Background);
        let of = |asked, default| finalizers(asked, default, &object);
        assert_eq!(of(None, background), ["x/y", "orphan"]);
        assert_eq!(of(Some(Propagation::Foreground), background), ["x/y", "foregroundDeletion"]);
        assert_eq!(of(background, background), ["x/y"]);
        assert_eq!(of(Some(Propagation::Orphan), None), ["x/y"]);
        let plain = json!({});
        assert_eq!(finalizers(None, Some(Propagation::Orphan), &plain), ["orphan"]);
    }
}
