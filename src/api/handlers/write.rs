//! The one write path: default, mutate, prepare, allocate, validate, one transaction on the
//! expected revision, the applied bytes back.
//!
//! Why one: create, PUT, the four patches, apply and every subresource that writes an object end
//! here, so a rule holds for all of them or for none (upstream's `registry.Store` with
//! `rest.BeforeCreate` and `BeforeUpdate`).

use std::sync::Arc;

use bytes::Bytes;

use super::admit::Admission;
use super::{convert, prepare};
use crate::api::admission::Operation;
use crate::api::data::{Change, Moment, Outcome};
use crate::api::metadata;
use crate::api::server::Call;
use crate::client::WriteOptions;
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Value, meta};
use crate::stdx::ids;
use crate::stdx::limits::PATCH_ATTEMPTS_MAX;
use crate::store::Entry;

/// Names that are tried for one `generateName` (upstream's `maxNameGenerationCreateAttempts`).
const GENERATED_NAMES_MAX: usize = 8;
/// Longest generated name (upstream's `maxNameLength`); the given start is cut for it.
const GENERATED_NAME_BYTES_MAX: usize = 63;
/// Attempts to take addresses or ports that others take at the same moment; then it is a 409.
const ALLOCATIONS_MAX: usize = 16;

/// What a write left behind.
pub struct Written {
    /// The object, its `resourceVersion` included.
    pub value: Value,
    /// The very bytes that are stored.
    pub bytes: Bytes,
    /// It is new.
    pub created: bool,
}

impl Written {
    fn unstored(value: Value, created: bool) -> Self {
        let bytes = crate::api::body::to_bytes(&value).into();
        Self { value, bytes, created }
    }
}

/// Who writes, for managedFields.
pub type Track<'a> = &'a (dyn Fn(Option<&Value>, Value) -> Result<Value> + Send + Sync);

/// Stores a new object. `track` enters the writer into managedFields.
pub async fn create(
    call: &Call,
    body: &Value,
    options: &WriteOptions,
    track: Track<'_>,
) -> Result<Written> {
    let start = meta::text(body, &["metadata", "generateName"]);
    let generated = meta::name(body).is_empty() && !start.is_empty();
    let mut attempts = if generated { GENERATED_NAMES_MAX } else { 1 };
    loop {
        let mut object = body.clone();
        if generated {
            let room = GENERATED_NAME_BYTES_MAX - ids::SUFFIX_LENGTH;
            let cut = start.char_indices().map(|(at, _)| at).find(|at| *at > room);
            let name = format!(
                "{}{}",
                &start[..cut.unwrap_or(start.len()).min(room)],
                ids::suffix(ids::SUFFIX_LENGTH)
            );
            meta::set(&mut object, &["metadata", "name"], name);
        }
        attempts -= 1;
        match create_once(call, object, options, track).await {
            Err(status) if status.is_already_exists() && attempts > 0 => {}
            other => return other,
        }
    }
}

async fn create_once(
    call: &Call,
    mut object: Value,
    options: &WriteOptions,
    track: Track<'_>,
) -> Result<Written> {
    let kind = &call.kind;
    if !matches!(meta::resource_version(&object), "" | "0") {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, "", text));
    }
    prepare::defaults(call, &mut object);
    let object = track(None, object)?;
    let name = meta::name(&object).to_owned();
    let mut admission = Admission::new(call, Operation::Create, &name, None, options.dry_run);
    let mut object = admission.mutate(object).await?;
    dedup_owners(call, &mut object, "after mutating admission");
    prepare::defaults(call, &mut object);
    prepare::system_fields(call, &mut object);
    kind.strategy.prepare_create(&call.write(), &mut object);
    if kind.strategy.counts_generation() {
        meta::set(&mut object, &["metadata", "generation"], 1);
    }
    for text in kind.strategy.warnings(&object, None) {
        call.warn(text);
    }
    let key = call.key(&name);
    for _ in 0..ALLOCATIONS_MAX {
        let mut attempt = object.clone();
        let view = call.api.data.cached();
        let write = call.write();
        let companions =
            kind.strategy.companions(&write, Some(&mut attempt), None, &Moment(view.clone()))?;
        let mut errors = metadata::validate_create(kind, &attempt);
        errors.extend(kind.strategy.validate_create(&write, &attempt));
        refuse(call, &name, &errors)?;
        let attempt = admission.validate(attempt).await?;
        if options.dry_run {
            return match view.get(&key) {
                Some(entry) => Err(exists(call, &name, &entry)),
                None => Ok(Written::unstored(attempt, true)),
            };
        }
        let stored = convert::stored(kind, attempt.clone())?;
        let expires_at_ms = expiry(call, &stored);
        let change =
            Change { key: &key, expected: 0, value: Some(&stored), expires_at_ms, companions };
        match call.api.data.commit(change).await? {
            Outcome::Stored(entry) => {
                let (value, bytes) = convert::written(kind, attempt, &entry)?;
                return Ok(Written { value, bytes, created: true });
            }
            Outcome::Conflict(Some(entry)) => return Err(exists(call, &name, &entry)),
            Outcome::Conflict(None) | Outcome::Taken | Outcome::Removed(_) => {}
        }
    }
    let why = "what it needs was taken by other requests meanwhile; please try again";
    Err(Status::conflict(&kind.gvr(), &name, why))
}

fn exists(call: &Call, name: &str, entry: &Entry) -> Status {
    let mut status = Status::already_exists(&call.kind.gvr(), name);
    if convert::value(&call.kind, &entry.value).is_ok_and(|old| meta::is_deleting(&old)) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

fn dedup_owners(call: &Call, object: &mut Value, when: &str) {
    let repeated = metadata::dedup_owners(object);
    if !repeated.is_empty() {
        call.warn(repeated_owners(&repeated, when));
    }
}

/// The warning about owners that were named twice.
pub fn repeated_owners(uids: &[String], when: &str) -> String {
    let uids = uids.join(", ");
    match when {
        "" => format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner \
             references in 1.20+, and may reject such requests as early as 1.24; please fix your \
             requests; duplicate UID(s) observed: {uids}"
        ),
        when => format!(
            ".metadata.ownerReferences contains duplicate entries {when} happens; API server \
             dedups owner references in 1.20+, and may reject such requests as early as 1.24; \
             please fix your requests; duplicate UID(s) observed: {uids}"
        ),
    }
}

/// 422, if there is anything to say.
pub fn refuse(call: &Call, name: &str, errors: &[FieldError]) -> Result<()> {
    let gvk = &call.kind.gvk;
    match errors {
        [] => Ok(()),
        errors => Err(Status::invalid(&gvk.group, &gvk.kind, name, errors)),
    }
}

fn expiry(call: &Call, object: &Value) -> Option<u64> {
    let life = call.kind.strategy.time_to_live(object)?;
    let now = call.api.clock.now().as_millisecond();
    Some(u64::try_from(now).unwrap_or(0) + life.as_millis() as u64)
}

/// How an update goes about.
pub struct Rules<'a> {
    /// A missing object is created from what `next` makes of nothing.
    pub create: bool,
    /// Who writes, for managedFields.
    pub track: Track<'a>,
    /// Written as it is, whatever `metadata.resourceVersion` says (internal steps).
    pub options: &'a WriteOptions,
}

/// Makes the new object from the present one (`None`: there is none).
pub type Next<'a> = &'a (dyn Fn(Option<&Value>) -> Result<Value> + Send + Sync);

/// Changes the object that `call` names, again and again until no other write comes between.
pub async fn update(call: &Call, rules: &Rules<'_>, next: Next<'_>) -> Result<Written> {
    let name = call.attributes.name.as_str();
    let key = call.key(name);
    let mut entry = call.api.data.cached().get(&key);
    if entry.is_none() {
        entry = call.api.data.fresh().await?.get(&key);
    }
    for _ in 0..PATCH_ATTEMPTS_MAX {
        let Some(present) = entry else {
            if !rules.create {
                return Err(Status::not_found(&call.kind.gvr(), name));
            }
            match create_absent(call, rules, next).await {
                Err(status) if status.is_already_exists() => {
                    entry = call.api.data.fresh().await?.get(&key);
                    continue;
                }
                other => return other,
            }
        };
        match update_once(call, rules, next, &key, &present).await {
            Ok(Step::Done(written)) => return Ok(*written),
            Ok(Step::Again(now)) => entry = now,
            Err(status) if status.is_conflict() => {
                // The view may have been stale: only a fresh one may say so to the client.
                let fresh = call.api.data.fresh().await?.get(&key);
                let same = fresh.as_ref().is_some_and(|f| f.mod_revision == present.mod_revision);
                if same {
                    return Err(status);
                }
                entry = fresh;
            }
            Err(status) => return Err(status),
        }
    }
    Err(Status::stale(&call.kind.gvr(), name))
}

async fn create_absent(call: &Call, rules: &Rules<'_>, next: Next<'_>) -> Result<Written> {
    let mut create = call.again(&call.attributes.name);
    "create".clone_into(&mut create.attributes.verb);
    crate::api::chain::authorize::authorize(&call.api, &create.attributes).await?;
    let mut body = next(None)?;
    if !meta::uid(&body).is_empty() {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: ",
            meta::uid(&body)
        );
        return Err(Status::conflict(&call.kind.gvr(), &call.attributes.name, &why));
    }
    prepare::wipe_system_fields(&mut body);
    prepare::place(call, &mut body)?;
    let written = Box::pin(self::create(&create, &body, rules.options, rules.track)).await;
    for text in create.warnings.into_inner() {
        call.warn(text);
    }
    written
}

enum Step {
    Done(Box<Written>),
    /// Another write came first; what is there now.
    Again(Option<Arc<Entry>>),
}

impl Step {
    fn done(value: Value, bytes: Bytes) -> Result<Self> {
        Ok(Self::Done(Box::new(Written { value, bytes, created: false })))
    }
}

async fn update_once(
    call: &Call,
    rules: &Rules<'_>,
    next: Next<'_>,
    key: &Bytes,
    entry: &Arc<Entry>,
) -> Result<Step> {
    let (kind, name) = (&call.kind, call.attributes.name.as_str());
    let dry_run = rules.options.dry_run;
    let old = Arc::new(convert::value(kind, &entry.value)?);
    let mut new = next(Some(&old))?;
    prepare::place(call, &mut new)?;
    check_preconditions(call, &mut new, &old)?;
    prepare::carry_over(call, &mut new, &old);
    prepare::defaults(call, &mut new);
    dedup_owners(call, &mut new, "");
    let new = (rules.track)(Some(&old), new)?;
    let mut admission = Admission::new(call, Operation::Update, name, Some(old.clone()), dry_run);
    let mut new = admission.mutate(new).await?;
    dedup_owners(call, &mut new, "after mutating admission");
    prepare::defaults(call, &mut new);
    prepare::update(call, &mut new, &old);
    let write = call.write();
    let view = Moment(call.api.data.cached());
    let companions = kind.strategy.companions(&write, Some(&mut new), Some(&old), &view)?;
    let mut errors = metadata::validate_update(&new, &old);
    errors.extend(kind.strategy.validate_update(&write, &new, &old));
    refuse(call, name, &errors)?;
    for text in kind.strategy.warnings(&new, Some(&old)) {
        call.warn(text);
    }
    prepare::keep_times_of_unchanged(&mut new, &old);
    let new = admission.validate(new).await?;
    if prepare::vanishes(call, &new, &old) {
        return vanish(call, new, &old, key, entry, dry_run).await;
    }
    if new == *old && companions.is_empty() {
        let bytes = convert::bytes(kind, &entry.value)?;
        return Step::done(new, bytes);
    }
    if dry_run {
        return Ok(Step::Done(Box::new(Written::unstored(new, false))));
    }
    let stored = convert::stored(kind, new.clone())?;
    let change = Change {
        key,
        expected: entry.mod_revision,
        value: Some(&stored),
        expires_at_ms: expiry(call, &stored),
        companions,
    };
    match call.api.data.commit(change).await? {
        Outcome::Stored(entry) => {
            let (value, bytes) = convert::written(kind, new, &entry)?;
            Step::done(value, bytes)
        }
        Outcome::Conflict(now) => Ok(Step::Again(now)),
        Outcome::Taken | Outcome::Removed(_) => Ok(Step::Again(Some(entry.clone()))),
    }
}

fn check_preconditions(call: &Call, new: &mut Value, old: &Value) -> Result<()> {
    let (kind, name) = (&call.kind, call.attributes.name.as_str());
    let (want, have) = (meta::uid(new), meta::uid(old));
    if !want.is_empty() && want != have {
        let why =
            format!("Precondition failed: UID in precondition: {want}, UID in object meta: {have}");
        return Err(Status::conflict(&kind.gvr(), name, &why));
    }
    let version = meta::resource_version(new).to_owned();
    let present = meta::resource_version(old);
    if matches!(version.as_str(), "" | "0") {
        if !kind.strategy.allows_unconditional_update() {
            let why = "must be specified for an update";
            let error = FieldError::invalid("metadata.resourceVersion", 0, why);
            return Err(Status::invalid(&kind.gvk.group, &kind.resource, name, &[error]));
        }
        meta::set(new, &["metadata", "resourceVersion"], present);
    } else if version.parse::<u64>().is_err() {
        let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        let error = FieldError::invalid("metadata.resourceVersion", version, why);
        return Err(Status::invalid(&kind.gvk.group, &kind.gvk.kind, name, &[error]));
    } else if version != present {
        return Err(Status::stale(&kind.gvr(), name));
    }
    Ok(())
}

/// The last finalizer of an object that is being deleted is gone: so is the object.
async fn vanish(
    call: &Call,
    mut new: Value,
    old: &Value,
    key: &Bytes,
    entry: &Arc<Entry>,
    dry_run: bool,
) -> Result<Step> {
    if dry_run {
        return Ok(Step::Done(Box::new(Written::unstored(new, false))));
    }
    match remove(call, key, entry.mod_revision, old).await? {
        Outcome::Removed(revision) => {
            meta::set(&mut new, &["metadata", "resourceVersion"], revision.to_string());
            let bytes = crate::api::body::to_bytes(&new).into();
            Step::done(new, bytes)
        }
        Outcome::Conflict(now) => Ok(Step::Again(now)),
        Outcome::Taken | Outcome::Stored(_) => Ok(Step::Again(Some(entry.clone()))),
    }
}

/// Removes an object and what only it needed.
pub async fn remove(call: &Call, key: &Bytes, expected: u64, old: &Value) -> Result<Outcome> {
    let view = Moment(call.api.data.cached());
    let companions = call.kind.strategy.companions(&call.write(), None, Some(old), &view)?;
    let change = Change { key, expected, value: None, expires_at_ms: None, companions };
    call.api.data.commit(change).await
}

/// Changes a stored object directly: for steps of the server itself (a binding, an eviction's
/// condition), whose own rules stand in `change` and that no strategy or plug-in judges.
pub async fn rewrite(
    call: &Call,
    name: &str,
    dry_run: bool,
    change: &(dyn Fn(&mut Value) -> Result<()> + Send + Sync),
) -> Result<Value> {
    let kind = &call.kind;
    let key = call.key(name);
    let mut entry = call.api.data.fresh().await?.get(&key);
    for _ in 0..PATCH_ATTEMPTS_MAX {
        let present = entry.ok_or_else(|| Status::not_found(&kind.gvr(), name))?;
        let old = convert::value(kind, &present.value)?;
        let mut new = old.clone();
        change(&mut new)?;
        if dry_run || new == old {
            return Ok(new);
        }
        let stored = convert::stored(kind, new.clone())?;
        let change = Change {
            key: &key,
            expected: present.mod_revision,
            value: Some(&stored),
            expires_at_ms: present.expires_at_ms,
            companions: Vec::new(),
        };
        match call.api.data.commit(change).await? {
            Outcome::Stored(entry) => return Ok(convert::written(kind, new, &entry)?.0),
            Outcome::Conflict(now) => entry = now,
            Outcome::Taken | Outcome::Removed(_) => entry = Some(present),
        }
    }
    Err(Status::stale(&kind.gvr(), name))
}
