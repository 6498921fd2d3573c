//! A served kind: its names, and the small strategy that is all it brings of its own.
//!
//! Why a trait of defaults: most kinds need none of these; generic handlers call them at fixed
//! points of the one write path (upstream's `rest.RESTCreateStrategy` and its kin).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::RequestContext;
use super::storage::{Companion, Lookup};
use crate::client::{Propagation, User};
use crate::object::status::{FieldError, Result};
use crate::object::{Gvk, Gvr, Value, meta};

/// A subresource that a kind serves with a body of its own shape or meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object; only `status` (and what [`Strategy`] lets through) is written.
    Status,
    /// An `autoscaling/v1` Scale over these three paths.
    Scale {
        /// As in ["spec", "replicas"].
        spec: &'static [&'static str],
        /// As in ["status", "replicas"].
        status: &'static [&'static str],
        /// As in ["status", "selector"] or ["spec", "selector"].
        selector: &'static [&'static str],
    },
    /// Served by a handler of its own that knows it by this name (binding, eviction, log, exec,
    /// token, finalize, approval, …); with the verbs that discovery shows and the kind of its body.
    Special {
        /// The name in the path.
        name: &'static str,
        /// As in ["create"].
        verbs: &'static [&'static str],
        /// Group, version, kind of the body.
        body: (&'static str, &'static str, &'static str),
    },
}

/// The name and meaning of a table column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// "string", "integer", "number", "boolean" or "date".
    pub kind: &'static str,
    /// "" or "name".
    pub format: &'static str,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
}

/// A served kind in one version.
pub struct Kind {
    /// Group, version and kind.
    pub gvk: Gvk,
    /// The plural name.
    pub resource: String,
    /// As in "pod".
    pub singular: String,
    /// As in "po".
    pub short_names: Vec<String>,
    /// As in "all".
    pub categories: Vec<String>,
    /// Lives in a namespace?
    pub namespaced: bool,
    /// The verbs of the resource itself, in discovery's order.
    pub verbs: Vec<String>,
    /// Beyond the object itself.
    pub subresources: Vec<Subresource>,
    /// (resource, group) under which objects are stored, when another kind keeps them.
    pub storage: (String, String),
    /// The version that is stored; others are converted by the strategy.
    pub storage_version: Gvk,
    /// What it brings of its own.
    pub strategy: Arc<dyn Strategy>,
    /// Why objects of this kind have no effect yet (its controller is not built); sent as a warning.
    pub inert: Option<&'static str>,
}

impl Kind {
    /// Group, version and resource.
    pub fn gvr(&self) -> Gvr {
        Gvr::new(self.gvk.group.clone(), self.gvk.version.clone(), self.resource.clone())
    }
}

/// What a strategy may know of the request.
pub struct Write<'a> {
    /// The kind.
    pub kind: &'a Kind,
    /// The request.
    pub request: &'a RequestContext,
    /// Who asks (after impersonation).
    pub user: &'a User,
    /// Now.
    pub now: Timestamp,
    /// The subresource that is written, "" for the object.
    pub subresource: &'a str,
}

/// What a kind brings of its own. Every method has the meaning that suits most kinds.
pub trait Strategy: Send + Sync {
    /// Defaults that the schema table cannot express. Called on writes and on reads of old objects;
    /// must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Called before a create is admitted: drop what clients may not set.
    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        meta::remove(object, &["status"]);
    }

    /// Called before an update of the object is admitted. `status` has been put back already.
    fn prepare_update(&self, _write: &Write<'_>, _new: &mut Value, _old: &Value) {}

    /// Called before an update of the status; everything but status and metadata has been put back.
    fn prepare_status(&self, _write: &Write<'_>, _new: &mut Value, _old: &Value) {}

    /// Whether the object has a `status` that only the subresource may write.
    fn splits_status(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    fn counts_generation(&self) -> bool {
        true
    }

    /// Whether an update without a `resourceVersion` is accepted.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a PUT to a name that does not exist creates the object.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// What is wrong with a new object.
    fn validate_create(&self, _write: &Write<'_>, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change (of the object or, by `write.subresource`, of a part of it).
    fn validate_update(&self, _write: &Write<'_>, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// How `metadata.name` must look: a function that gives the fault's text.
    fn check_name(&self, name: &str) -> Option<String> {
        super::kind::dns_subdomain_fault(name)
    }

    /// Warnings for the client about an accepted object.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Seconds of grace for a delete that may be graceful; `None`: it is deleted at once.
    fn grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Values of the fields that a field selector may name, besides metadata.name and .namespace.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The names of those fields.
    fn selectable_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Table columns after Name; the default is Age alone. Where one of them is itself called "Name",
    /// the list is the whole table and no Name goes before it.
    fn columns(&self) -> &'static [Column] {
        &[Column { name: "Age", kind: "string", format: "", priority: 0 }]
    }

    /// The cells of those columns.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![age(object, now).into()]
    }

    /// Other keys that must be written in the same transaction as this object: addresses, ports and
    /// ranges that no two objects may share. `new` is `None` for a delete and `old` for a create;
    /// what was chosen is written into `new`. Called before validation, and again with a fresh
    /// `view` when another write took one of the keys meanwhile.
    fn companions(
        &self,
        _write: &Write<'_>,
        _new: Option<&mut Value>,
        _old: Option<&Value>,
        _view: &dyn Lookup,
    ) -> Result<Vec<Companion>> {
        Ok(Vec::new())
    }

    /// Called when a delete leaves the object in place because of grace or finalizers;
    /// `deletionTimestamp` is set already.
    fn prepare_delete(&self, _write: &Write<'_>, _object: &mut Value) {}

    /// Whether an object that is being deleted and has no `metadata.finalizers` may go (a
    /// namespace waits for `spec.finalizers` too).
    fn may_vanish(&self, _object: &Value) -> bool {
        true
    }

    /// Whether a delete answers with the object that is gone instead of a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// What happens to dependents when a delete does not say; `None`: the kind owns nothing.
    fn default_propagation(&self) -> Option<Propagation> {
        Some(Propagation::Background)
    }

    /// How long an object lives after its last write (`None`: for good).
    fn time_to_live(&self, _object: &Value) -> Option<Duration> {
        None
    }

    /// Converts a stored object to `to` (and back): for kinds with several versions.
    fn convert(&self, object: Value, _to: &Gvk) -> Result<Value> {
        Ok(object)
    }
}

/// The strategy of a kind that needs nothing of its own.
pub struct Plain;

impl Strategy for Plain {}

/// The fault in a name that must be an RFC 1123 subdomain, in upstream's words.
pub fn dns_subdomain_fault(name: &str) -> Option<String> {
    use crate::object::selector::is_dns_subdomain;
    if name.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!is_dns_subdomain(name)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
         used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned()
    })
}

/// The time since `metadata.creationTimestamp`, as kubectl prints it.
pub fn age(object: &Value, now: Timestamp) -> String {
    let created = meta::text(object, &["metadata", "creationTimestamp"]);
    match crate::object::time::parse(created) {
        Some(time) => human_duration(now.as_second() - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Upstream's `duration.HumanDuration` of a number of seconds.
pub fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_upstream_writes_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (601, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (700_000, "8d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
