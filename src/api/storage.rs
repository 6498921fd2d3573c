//! Where objects lie in the store: one key layout for all kinds.
//!
//! `RESOURCE.GROUP/NAMESPACE/NAME` (the group's dot is left out for core; the namespace is empty for
//! cluster-scoped kinds). Why by resource and not by version: all versions of a kind share their
//! objects, and a list over all namespaces is one range.

use bytes::Bytes;

use crate::object::Value;

/// One more key of a transaction, beside its object's.
#[derive(Clone, Debug, PartialEq)]
pub struct Companion {
    /// Where it is: an object's [`key`], or any text below a prefix that no kind has.
    pub key: Bytes,
    /// The revision it must still have; 0: it must not exist.
    pub expected: u64,
    /// What happens to it.
    pub change: CompanionChange,
}

/// What happens to a companion key.
#[derive(Clone, Debug, PartialEq)]
pub enum CompanionChange {
    /// It is written; an object gets its `metadata.resourceVersion` filled in.
    Put(Value),
    /// It is removed.
    Delete,
    /// It only has to be as expected.
    Keep,
}

/// Reads of one moment of the store: what strategies, admission and authorization may look at.
pub trait Lookup: Send + Sync {
    /// A value and the revision of its last change.
    fn get(&self, key: &[u8]) -> Option<(Bytes, u64)>;
    /// Calls `each` with keys below `prefix` and their values, in order, until it gives `false`.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&Bytes, &Bytes) -> bool);
}

/// The key of one object.
pub fn key(resource: &str, group: &str, namespace: &str, name: &str) -> Bytes {
    let mut key = prefix(resource, group);
    key.push_str(namespace);
    key.push('/');
    key.push_str(name);
    Bytes::from(key)
}

/// The start of the keys of all objects of a resource.
pub fn prefix(resource: &str, group: &str) -> String {
    let mut prefix = String::with_capacity(64);
    prefix.push_str(resource);
    if !group.is_empty() {
        prefix.push('.');
        prefix.push_str(group);
    }
    prefix.push('/');
    prefix
}

/// The start of the keys of a resource's objects in one namespace.
pub fn namespace_prefix(resource: &str, group: &str, namespace: &str) -> String {
    let mut prefix = prefix(resource, group);
    prefix.push_str(namespace);
    prefix.push('/');
    prefix
}

/// (namespace, name) of a key.
pub fn names(key: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(key).ok()?;
    let mut parts = text.rsplitn(3, '/');
    let (name, namespace) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let at = key("deployments", "apps", "default", "web");
        assert_eq!(at, "deployments.apps/default/web");
        assert_eq!(names(&at), Some(("default", "web")));
        assert_eq!(names(&key("nodes", "", "", "n1")), Some(("", "n1")));
        assert!(at.starts_with(namespace_prefix("deployments", "apps", "default").as_bytes()));
    }
}
