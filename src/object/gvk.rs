//! Names of types: group, version, kind and resource.
//!
//! Why owned strings: custom resources bring names that no table knows.

use std::fmt;

/// A group and a version; the core group is "".
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// The group, "" for core.
    pub group: String,
    /// The version, as in "v1".
    pub version: String,
}

impl GroupVersion {
    /// From its parts.
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Reads an `apiVersion`: "v1" or "apps/v1".
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None if text.is_empty() => None,
            None => Some(Self::new("", text)),
            Some((group, version)) if !version.contains('/') => Some(Self::new(group, version)),
            Some(_) => None,
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            out.write_str(&self.version)
        } else {
            write!(out, "{}/{}", self.group, self.version)
        }
    }
}

/// A group and a kind, without a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// The group, "" for core.
    pub group: String,
    /// The kind, as in "Deployment".
    pub kind: String,
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// The group, "" for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
}

impl Gvk {
    /// From its parts.
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        kind: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The `apiVersion` text.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group.clone(), self.version.clone())
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, Kind={}", self.group_version(), self.kind)
    }
}

/// Group, version and resource (the plural in a URL).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// The group, "" for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural name, as in "deployments".
    pub resource: String,
}

impl Gvr {
    /// From its parts.
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group.clone(), self.version.clone())
    }

    /// As error texts name it: "pods" or "deployments.apps" (upstream's `GroupResource.String`).
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, Resource={}", self.group_version(), self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_round_trip() {
        for text in ["v1", "apps/v1", "rbac.authorization.k8s.io/v1"] {
            assert_eq!(GroupVersion::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(GroupVersion::parse(""), None);
        assert_eq!(GroupVersion::parse("a/b/c"), None);
    }

    #[test]
    fn resources_are_named_as_upstream_names_them() {
        assert_eq!(Gvr::new("", "v1", "pods").group_resource(), "pods");
        assert_eq!(Gvr::new("apps", "v1", "deployments").group_resource(), "deployments.apps");
    }
}
