//! The kinds that the server answers: their names in one table ([`all`]), and a strategy each in
//! `<group>/<kind>.rs`.
//!
//! Why strategies over untyped values: a kind brings only what the schema table cannot say
//! (defaults that depend on other fields, immutability, validation, table cells), in upstream's
//! field paths and texts (`pkg/apis/*/validation`), so that clients and tests read what they know.

mod apps;
mod batch;
mod columns;
mod core;
mod declared;
mod diff;
mod field;
mod fill;
mod list;
mod names;
mod podspec;
mod rbac;
mod rules;
#[cfg(test)]
mod testing;
mod validate;

use std::sync::Arc;

use super::kind::{Kind, Strategy, Subresource};
use crate::object::Gvk;

/// The verbs of a persisted resource, in discovery's order.
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const REPLICAS: (&[&str], &[&str]) = (&["spec", "replicas"], &["status", "replicas"]);
/// `spec.selector` is a LabelSelector, of a ReplicationController a plain map.
const SCALE: &[Subresource] = &[
    Subresource::Scale { spec: REPLICAS.0, status: REPLICAS.1, selector: &["spec", "selector"] },
    Subresource::Status,
];
/// One line of the list.
struct Row {
    gvk: (&'static str, &'static str, &'static str),
    resource: &'static str,
    singular: Option<&'static str>,
    short: &'static str,
    category: &'static str,
    cluster: bool,
    no_collection: bool,
    subresources: &'static [Subresource],
    storage: (&'static str, &'static str),
    strategy: fn() -> Arc<dyn Strategy>,
    inert: Option<&'static str>,
}

impl Row {
    fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        resource: &'static str,
        strategy: fn() -> Arc<dyn Strategy>,
    ) -> Self {
        Self {
            gvk: (group, version, kind),
            resource,
            singular: None,
            short: "",
            category: "",
            cluster: false,
            no_collection: false,
            subresources: &[],
            storage: (group, version),
            strategy,
            inert: None,
        }
    }

    /// Short names, with commas between them.
    fn short(self, short: &'static str) -> Self {
        Self { short, ..self }
    }

    /// Where it is not the kind in lower case.
    fn singular(self, singular: &'static str) -> Self {
        Self { singular: Some(singular), ..self }
    }

    fn category(self, category: &'static str) -> Self {
        Self { category, ..self }
    }

    fn cluster(self) -> Self {
        Self { cluster: true, ..self }
    }

    fn no_collection(self) -> Self {
        Self { no_collection: true, ..self }
    }

    fn sub(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }

    /// Another version of the group is what is stored.
    fn stored_as(self, version: &'static str) -> Self {
        Self { storage: (self.gvk.0, version), ..self }
    }

    /// The core group's resource of the same name keeps the objects.
    fn stored_in_core(self) -> Self {
        Self { storage: ("", "v1"), ..self }
    }

    fn inert(self, why: &'static str) -> Self {
        Self { inert: Some(why), ..self }
    }

    fn kind(self) -> Kind {
        let (group, version, kind) = self.gvk;
        let words = |text: &str| {
            text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let verbs = VERBS.iter().filter(|verb| !self.no_collection || **verb != "deletecollection");
        Kind {
            gvk: Gvk::new(group, version, kind),
            resource: self.resource.to_owned(),
            singular: self.singular.map_or_else(|| kind.to_lowercase(), str::to_owned),
            short_names: words(self.short),
            categories: words(self.category),
            namespaced: !self.cluster,
            verbs: verbs.map(|verb| (*verb).to_owned()).collect(),
            subresources: self.subresources.to_vec(),
            storage: (self.resource.to_owned(), self.storage.0.to_owned()),
            storage_version: Gvk::new(self.storage.0, self.storage.1, kind),
            strategy: (self.strategy)(),
            inert: self.inert,
        }
    }
}

/// Every persisted kind of Kubernetes 1.36, in each of its GA versions.
pub fn all() -> Vec<Kind> {
    list::rows().into_iter().map(Row::kind).collect()
}

/// A resource that is answered and never stored: a handler of its own knows it by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// Group, version, kind.
    pub gvk: (&'static str, &'static str, &'static str),
    /// The plural name.
    pub resource: &'static str,
    /// As in "tokenreview".
    pub singular: &'static str,
    /// As in "cs".
    pub short_names: &'static [&'static str],
    /// Lives in a namespace?
    pub namespaced: bool,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
}

/// The resources without objects of their own: reviews, bindings, component statuses.
pub const VIRTUAL: &[Virtual] = &[
    Virtual {
        gvk: ("", "v1", "Binding"),
        resource: "bindings",
        singular: "binding",
        short_names: &[],
        namespaced: true,
        verbs: &["create"],
    },
    Virtual {
        gvk: ("", "v1", "ComponentStatus"),
        resource: "componentstatuses",
        singular: "componentstatus",
        short_names: &["cs"],
        namespaced: false,
        verbs: &["get", "list"],
    },
    review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"),
    review("authentication.k8s.io", "TokenReview", "tokenreviews", "tokenreview"),
    Virtual {
        namespaced: true,
        ..review(
            "authorization.k8s.io",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
        )
    },
    review(
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    ),
    review(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
    ),
    review(
        "authorization.k8s.io",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
    ),
];

const fn review(
    group: &'static str,
    kind: &'static str,
    resource: &'static str,
    singular: &'static str,
) -> Virtual {
    Virtual {
        gvk: (group, "v1", kind),
        resource,
        singular,
        short_names: &[],
        namespaced: false,
        verbs: &["create"],
    }
}
