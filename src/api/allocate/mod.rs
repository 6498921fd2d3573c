//! Addresses and ports that no two Services may share.
//!
//! A Service's cluster addresses are IPAddress objects and its node ports plain keys, written in
//! the *same* transaction as the Service. Why: there is no moment at which an address is taken
//! without its Service or a Service lives without its address, so nothing has to be repaired; two
//! creates that pick the same address meet in the store, and the loser picks again.
//!
//! A Service's strategy calls [`prepare_update`] in its `prepare_update` and [`companions`] in its
//! `companions`; [`check_update`] belongs to its validation.

mod addresses;
mod families;
mod ports;
mod spec;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use self::addresses::Ranges;
use self::spec::Spec;
use crate::api::storage::{Companion, CompanionChange, Lookup};
use crate::object::status::{FieldError, Result};
use crate::object::{Status, Value, meta};

/// Prefix of the keys of node ports; no resource has such a name.
const PORTS_PREFIX: &str = "~nodeports/";

/// Carries what was allocated over into an update that does not mention it, and drops what a
/// change of type makes void (upstream's `patchAllocatedValues`, `normalizeClusterIPs` and
/// `dropTypeDependentFields`).
pub fn prepare_update(new: &mut Value, old: &Value) {
    let before = Spec::read(old);
    let mut after = Spec::read(new);
    after.drop_by_type(&before);
    after.carry_over(&before);
    after.normalize(Some(&before));
    after.write(new);
}

/// What may not change in an update (upstream's `validateUpgradeDowngrade…`).
pub fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    families::check_change(&Spec::read(new), &Spec::read(old))
}

/// Chooses what a Service needs, writes it into `new`, and gives the keys that go with it.
/// `new` is `None` for a delete, `old` for a create.
pub fn companions(
    new: Option<&mut Value>,
    old: Option<&Value>,
    view: &dyn Lookup,
    now: Timestamp,
) -> Result<Vec<Companion>> {
    let before = old.map(Spec::read);
    let mut changes = Vec::new();
    let Some(new) = new else {
        if let (Some(object), Some(before)) = (old, &before) {
            let owner = Owner::of(object);
            addresses::release(&owner, before.addresses(), view, &mut changes);
            ports::release(&owner, &before.node_ports(), view, &mut changes);
        }
        return Ok(changes);
    };
    let owner = Owner::of(new);
    let mut after = Spec::read(new);
    let ranges = Ranges::read(view);
    after.normalize(before.as_ref());
    let fields = |errors: &[FieldError]| Status::invalid("", "Service", &owner.name, errors);
    families::complete(&mut after, before.as_ref(), &ranges).map_err(|list| fields(&list))?;
    let claims = addresses::Claims { owner: &owner, ranges: &ranges, view, now };
    claims.allocate(&mut after, before.as_ref(), &mut changes)?;
    ports::allocate(&owner, &mut after, before.as_ref(), view, &mut changes)?;
    after.write(new);
    Ok(changes)
}

/// The Service for which something is kept.
struct Owner {
    namespace: String,
    name: String,
}

impl Owner {
    fn of(object: &Value) -> Self {
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A key that must not exist and is written.
fn taken(key: bytes::Bytes, value: Value) -> Companion {
    Companion { key, expected: 0, change: CompanionChange::Put(value) }
}

/// A key that is removed as it was seen.
fn freed(key: bytes::Bytes, revision: u64) -> Companion {
    Companion { key, expected: revision, change: CompanionChange::Delete }
}
