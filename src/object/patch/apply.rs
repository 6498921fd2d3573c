//! Server-side apply, and the tracking of who set which fields.
//!
//! Why the sets come first: who owns a field decides whether a change is a conflict and whether a
//! field that is no longer applied goes. The objects are merged by the table's list kinds; the rest
//! is set arithmetic.

use super::fields::{Set, show};
use super::managed::{self, Entry, Operation};
use super::typed::{Changes, Walk};
use crate::object::schema::{Root, decode};
use crate::object::status::{Cause, Details};
use crate::object::{Gvk, Map, Status, Value, meta, time};
use crate::stdx::limits::ANNOTATIONS_BYTES_MAX;

/// kubectl's record of what client-side apply last sent.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager of fields that were there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields of metadata that nobody owns.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Who writes.
#[derive(Debug, Clone)]
pub struct Manager {
    /// The field manager: `?fieldManager=`, or the user agent up to the first `/`.
    pub name: String,
    /// The version of the request, as in `apps/v1`.
    pub api_version: String,
    /// The subresource, or "".
    pub subresource: String,
    /// Now.
    pub time: jiff::Timestamp,
    /// Fields that this endpoint resets, which so nobody can own through it: `[["status"]]` for
    /// most kinds, `[["spec"]]` and more for their status.
    pub reset: Vec<Vec<&'static str>>,
}

impl Manager {
    fn entry(&self, operation: Operation, set: Set) -> Entry {
        let name = if self.name.is_empty() { "unknown" } else { &self.name };
        Entry {
            manager: name.to_owned(),
            operation,
            api_version: self.api_version.clone(),
            subresource: self.subresource.clone(),
            time: Some(time::seconds(self.time)),
            set,
        }
    }

    fn filter(&self, set: Set) -> Set {
        self.reset.iter().fold(set, |set, path| set.without(path))
    }

    fn changes(&self, walk: Walk, old: &Value, new: &Value) -> Changes {
        let changes = walk.compare(old, new);
        Changes { set: self.filter(changes.set), removed: self.filter(changes.removed) }
    }
}

/// A field that someone else owns.
struct Conflict {
    manager: String,
    path: Vec<String>,
}

/// Applies a configuration: the merged object with its managers, or a conflict. `live` is `None`
/// when the object does not exist. Defaults are the caller's to fill in afterwards.
pub fn apply(
    root: Root,
    live: Option<&Value>,
    config: &Value,
    who: &Manager,
    force: bool,
) -> Result<Value, Status> {
    let sent = config;
    let config = checked(root, config, who)?;
    let walk = Walk::new(root);
    let empty = Value::Object(Map::new());
    let mut before = live.cloned().unwrap_or_else(|| empty.clone());
    let mut entries = managed::read(&before).ok_or_else(|| {
        Status::failure(500, "", "failed to decode managed fields: an entry is malformed")
    })?;
    meta::remove(&mut before, &["metadata", "managedFields"]);
    if entries.is_empty() && live.is_some() {
        let first = Manager { name: BEFORE_FIRST_APPLY.to_owned(), ..who.clone() };
        entries = updated(walk, &empty, &before, Vec::new(), &first);
        managed::cap(&mut entries);
    }
    let call = |force| applied(walk, &before, &config, entries.clone(), who, force);
    let result = match call(force) {
        Err(conflicts) if who.name == "kubectl" => {
            let allowed = allowed_by_last_applied(root, walk, &before, who);
            let rest: Vec<Conflict> =
                conflicts.into_iter().filter(|one| !allowed.has(&one.path)).collect();
            if rest.is_empty() { call(true) } else { Err(rest) }
        }
        other => other,
    };
    let (mut object, entries) = result.map_err(conflict)?;
    if who.name == "kubectl" && !last_applied(&object).is_empty() {
        sync_last_applied(&mut object, sent);
    }
    managed::write(&mut object, entries);
    Ok(object)
}

/// Notes in `new` what an update, patch or create changed. `live` is `None` for a create. Where
/// nothing changed, no entry is touched.
pub fn track(root: Root, live: Option<&Value>, new: &mut Value, who: &Manager) {
    let empty = Value::Object(Map::new());
    let mut before = live.cloned().unwrap_or(empty);
    let of_live = || managed::read(&before).unwrap_or_default();
    let entries = if !who.subresource.is_empty() {
        of_live()
    } else if managed::is_reset(new) {
        Vec::new()
    } else {
        match managed::read(new) {
            Some(entries) if !entries.is_empty() => entries,
            _ => of_live(),
        }
    };
    meta::remove(new, &["metadata", "managedFields"]);
    meta::remove(&mut before, &["metadata", "managedFields"]);
    // An object whose managers were reset is not tracked until someone applies it.
    if entries.is_empty() && live.is_some() {
        return;
    }
    let mut entries = updated(Walk::new(root), &before, new, entries, who);
    managed::cap(&mut entries);
    managed::write(new, entries);
}

/// The configuration in canonical form, or why it cannot be applied.
fn checked(root: Root, config: &Value, who: &Manager) -> Result<Value, Status> {
    let said = meta::gvk(config).unwrap_or_else(|| Gvk::new("", "", ""));
    if root.kind.is_some_and(|kind| *kind != said) || said.api_version() != who.api_version {
        return Err(Status::bad_request(format!("invalid object type: {said}")));
    }
    let claims = meta::at(config, &["metadata", "managedFields"]);
    if claims.is_some_and(|value| !value.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let errors = Walk::new(root).validate(config);
    if !errors.is_empty() {
        let text = match errors.as_slice() {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        return Err(Status::failure(
            500,
            "",
            format!(
                "failed to create typed patch object ({}/{}; {said}): {text}",
                meta::namespace(config),
                meta::name(config)
            ),
        ));
    }
    let decoded = decode::value(config.clone(), root, decode::Validation::Ignore);
    decoded.map(|decoded| decoded.value).map_err(Status::bad_request)
}

/// Merges, prunes what its applier let go of, and settles ownership.
fn applied(
    walk: Walk,
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    who: &Manager,
    force: bool,
) -> Result<(Value, Vec<Entry>), Vec<Conflict>> {
    let mut mine = who.entry(Operation::Apply, who.filter(walk.fields(config)));
    let place = entries.iter().position(|entry| entry.same_manager(&mine));
    let last = place.map(|at| entries.remove(at));
    let merged = walk.merge(live, config);
    let last_set = last.as_ref().map(|entry| entry.set.clone()).unwrap_or_default();
    let owned = entries.iter().fold(mine.set.clone(), |all, entry| all.union(&entry.set));
    let object = pruned(walk, merged, &last_set, &owned);
    let changes = who.changes(walk, live, &object);
    settle(&mut entries, &changes, force)?;
    mine.set = strip(mine.set);
    if object == *live {
        // Nothing changed but, at most, who owns what: the time stays.
        mine.time = last.and_then(|entry| entry.time);
    }
    entries.push(mine);
    Ok((object, entries))
}

/// What an update changed becomes the manager's; others lose it.
fn updated(
    walk: Walk,
    live: &Value,
    new: &Value,
    mut entries: Vec<Entry>,
    who: &Manager,
) -> Vec<Entry> {
    let changes = who.changes(walk, live, new);
    // Upstream lets the current operation be a manager of its own first, so the previous entry of
    // the same manager loses what changed and gets it back here.
    let _ = settle(&mut entries, &changes, true);
    let set = strip(changes.set);
    if set.is_empty() {
        return entries;
    }
    let mut mine = who.entry(Operation::Update, set);
    if let Some(at) = entries.iter().position(|entry| entry.same_manager(&mine)) {
        mine.set = mine.set.union(&entries.remove(at).set);
    }
    entries.push(mine);
    entries
}

/// Takes changed and removed fields from the other managers; without force, a change of what one
/// of them owns is a conflict.
fn settle(entries: &mut Vec<Entry>, changes: &Changes, force: bool) -> Result<(), Vec<Conflict>> {
    if !force {
        let conflicts: Vec<Conflict> = entries
            .iter()
            .flat_map(|entry| {
                let paths = entry.set.intersection(&changes.set).paths();
                paths.into_iter().map(|path| Conflict { manager: entry.shown(), path })
            })
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    for entry in entries.iter_mut() {
        entry.set = entry.set.difference(&changes.set).difference(&changes.removed);
    }
    entries.retain(|entry| !entry.set.is_empty());
    Ok(())
}

/// Removes what the applier owned last time and applies no more, unless someone owns it still.
fn pruned(walk: Walk, merged: Value, last: &Set, owned: &Set) -> Value {
    if last.is_empty() {
        return merged;
    }
    let last = walk.with_named(last);
    let all = walk.with_named(&walk.fields(&merged));
    let bare = walk.remove(&merged, &last);
    // What others own, and what holds it, comes back.
    let kept = walk.with_named(&walk.fields(&bare)).union(&walk.with_named(owned));
    let back = walk.remove(&merged, &all.difference(&kept));
    // What went along but was not the applier's, such as a container's defaults, comes back too.
    let kept = walk.with_named(&walk.fields(&back));
    walk.remove(&merged, &all.difference(&kept).intersection(&last))
}

/// Nobody owns an object's identity.
fn strip(mut set: Set) -> Set {
    for name in ["apiVersion", "kind", "metadata"] {
        set.forget(&[name]);
    }
    for name in UNOWNED {
        set.forget(&["metadata", name]);
    }
    set
}

fn last_applied(object: &Value) -> &str {
    meta::text(object, &["metadata", "annotations", LAST_APPLIED])
}

/// Fields that client-side apply set and nobody changed since: kubectl's server-side apply may
/// take them over.
fn allowed_by_last_applied(root: Root, walk: Walk, live: &Value, who: &Manager) -> Set {
    let Ok(last) = serde_json::from_str::<Value>(last_applied(live)) else {
        return Set::default();
    };
    if meta::text(&last, &["apiVersion"]) != who.api_version || !walk.validate(&last).is_empty() {
        return Set::default();
    }
    let Ok(last) = decode::value(last, root, decode::Validation::Ignore) else {
        return Set::default();
    };
    let changes = walk.compare(&last.value, live);
    walk.fields(&last.value).difference(&changes.set).difference(&changes.removed)
}

/// Keeps kubectl's annotation in step, so that client-side apply can take over again.
fn sync_last_applied(object: &mut Value, config: &Value) {
    let mut record = config.clone();
    meta::remove(&mut record, &["metadata", "annotations", LAST_APPLIED]);
    let Some(Value::Object(annotations)) = meta::at_mut(object, &["metadata", "annotations"])
    else {
        return;
    };
    annotations.insert(LAST_APPLIED.to_owned(), format!("{record}\n").into());
    let size: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// 409 with a cause for each field.
fn conflict(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    let message = match conflicts.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager,
            show(&one.path)
        ),
        many => {
            let mut lines = Vec::new();
            for (at, one) in many.iter().enumerate() {
                if at == 0 || many[at - 1].manager != one.manager {
                    lines.push(format!("conflicts with {}:", one.manager));
                }
                lines.push(format!("- {}", show(&one.path)));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let mut status = Status::failure(409, "Conflict", message);
    let causes = conflicts.iter().map(|one| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", one.manager),
        field: show(&one.path),
    });
    status.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
    status
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
