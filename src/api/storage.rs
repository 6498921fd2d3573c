//! Where objects lie in the store: one key layout for all kinds.
//!
//! `RESOURCE.GROUP/NAMESPACE/NAME` (the group's dot is left out for core; the namespace is empty for
//! cluster-scoped kinds). Why by resource and not by version: all versions of a kind share their
//! objects, and a list over all namespaces is one range.

use bytes::Bytes;

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
