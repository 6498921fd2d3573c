//! The kinds that are served, found by resource or by kind.
//!
//! Why behind one swap: custom resources come and go while requests run; each request keeps the
//! registry that it began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kind::{Kind, Subresource};
use crate::object::{GroupVersion, Gvk, Gvr};

/// A set of served kinds.
#[derive(Default)]
pub struct Registry {
    by_resource: HashMap<Gvr, Arc<Kind>>,
    by_kind: HashMap<Gvk, Arc<Kind>>,
    /// Sorted by resource within a group and version.
    groups: BTreeMap<(String, String), Vec<Arc<Kind>>>,
}

impl Registry {
    /// A registry of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut this = Self::default();
        for kind in kinds {
            let kind = Arc::new(kind);
            this.by_resource.insert(kind.gvr(), kind.clone());
            this.by_kind.insert(kind.gvk.clone(), kind.clone());
            let at = (kind.gvk.group.clone(), kind.gvk.version.clone());
            this.groups.entry(at).or_default().push(kind);
        }
        for kinds in this.groups.values_mut() {
            kinds.sort_by(|a, b| a.resource.cmp(&b.resource));
        }
        this
    }

    /// The kind of a resource.
    pub fn resource(&self, gvr: &Gvr) -> Option<&Arc<Kind>> {
        self.by_resource.get(gvr)
    }

    /// By group, version and kind.
    pub fn kind(&self, gvk: &Gvk) -> Option<&Arc<Kind>> {
        self.by_kind.get(gvk)
    }

    /// The kinds of one group and version.
    pub fn in_version(&self, group: &str, version: &str) -> &[Arc<Kind>] {
        let at = (group.to_owned(), version.to_owned());
        self.groups.get(&at).map(Vec::as_slice).unwrap_or_default()
    }

    /// The groups in the order in which clients prefer them, each with its versions, best first.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (group, version) in self.groups.keys() {
            found.entry(group).or_default().push(version.clone());
        }
        let mut all: Vec<(String, Vec<String>)> =
            found.into_iter().map(|(group, versions)| (group.to_owned(), versions)).collect();
        for (_, versions) in &mut all {
            versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        all.sort_by_key(|(group, _)| group_rank(group));
        all
    }

    /// The versions that are served.
    pub fn versions(&self) -> impl Iterator<Item = GroupVersion> {
        self.groups.keys().map(|(group, version)| GroupVersion::new(group, version))
    }

    /// Every kind once.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.groups.values().flatten()
    }
}

/// A group's place in [`GROUP_ORDER`].
pub fn group_rank(group: &str) -> usize {
    GROUP_ORDER.iter().position(|known| *known == group).unwrap_or(GROUP_ORDER.len())
}

/// Upstream's order of the groups below `/apis` (by the priorities of its APIServices).
const GROUP_ORDER: [&str; 22] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
];

/// GA before beta before alpha, then the higher number (apimachinery `CompareKubeAwareVersionStrings`).
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().unwrap_or(0);
    let minor = |text: &str| text.parse().unwrap_or(0);
    match &rest[digits..] {
        "" => (3, major, 0),
        stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
            (Some(number), _) => (2, major, minor(number)),
            (_, Some(number)) => (1, major, minor(number)),
            _ => (0, 0, 0),
        },
    }
}

impl Kind {
    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|one| one.name() == name)
    }

    /// Whether only the `status` subresource writes `status`.
    pub fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }

    /// Whether stored bytes are of this very version.
    pub fn is_stored(&self) -> bool {
        self.gvk == self.storage_version
    }
}

impl Subresource {
    /// Its name in a path.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale { .. } => "scale",
            Self::Special { name, .. } => name,
        }
    }

    /// What may be done with it.
    pub fn verbs(&self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale { .. } => &["get", "patch", "update"],
            Self::Special { verbs, .. } => verbs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_clients_expect() {
        let mut versions = vec!["v1alpha1", "v2", "v1", "v2beta1", "v10", "foo", "v1beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta1", "v1alpha1", "foo"]);
    }
}
