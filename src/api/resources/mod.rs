//! The kinds that the server answers: their names in one table ([`all`]), and a strategy each in
//! `<group>/<kind>.rs`.
//!
//! Why strategies over untyped values: a kind brings only what the schema table cannot say
//! (defaults that depend on other fields, immutability, validation, table cells), in upstream's
//! field paths and texts (`pkg/apis/*/validation`), so that clients and tests read what they know.

mod admissionregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod columns;
mod coordination;
mod core;
mod declared;
mod diff;
mod discovery;
mod extensions;
mod field;
mod fill;
mod flowcontrol;
mod list;
mod names;
mod networking;
mod node;
mod podspec;
mod policy;
mod rbac;
mod resource;
mod rules;
mod scheduling;
mod storage;
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::object::Value;
    use serde_json::json;

    /// (resource, kind, namespaced) by "group/version".
    type Known = BTreeMap<String, BTreeSet<(&'static str, &'static str, bool)>>;

    macro_rules! add_all {
        ($known:expr, $namespaced:expr, $($kind:ty),* $(,)?) => {
            $(add::<$kind, _>($known, $namespaced);)*
        };
    }

    /// As k8s-openapi knows them.
    fn known() -> Known {
        let mut known = Known::new();
        add_cluster_kinds(&mut known);
        add_namespaced_kinds(&mut known);
        known
    }

    fn add_cluster_kinds(known: &mut Known) {
        use k8s_openapi::api as k;
        use k8s_openapi::{apiextensions_apiserver as e, kube_aggregator as a};
        add_all!(
            known,
            false,
            k::admissionregistration::v1::MutatingAdmissionPolicy,
            k::admissionregistration::v1::MutatingAdmissionPolicyBinding,
            k::admissionregistration::v1::MutatingWebhookConfiguration,
            k::admissionregistration::v1::ValidatingAdmissionPolicy,
            k::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
            k::admissionregistration::v1::ValidatingWebhookConfiguration,
            k::certificates::v1::CertificateSigningRequest,
            k::core::v1::Namespace,
            k::core::v1::Node,
            k::core::v1::PersistentVolume,
            k::flowcontrol::v1::FlowSchema,
            k::flowcontrol::v1::PriorityLevelConfiguration,
            k::networking::v1::IPAddress,
            k::networking::v1::IngressClass,
            k::networking::v1::ServiceCIDR,
            k::node::v1::RuntimeClass,
            k::rbac::v1::ClusterRole,
            k::rbac::v1::ClusterRoleBinding,
            k::resource::v1::DeviceClass,
            k::resource::v1::ResourceSlice,
            k::scheduling::v1::PriorityClass,
            k::storage::v1::CSIDriver,
            k::storage::v1::CSINode,
            k::storage::v1::StorageClass,
            k::storage::v1::VolumeAttachment,
            k::storage::v1::VolumeAttributesClass,
            e::pkg::apis::apiextensions::v1::CustomResourceDefinition,
            a::pkg::apis::apiregistration::v1::APIService,
        );
    }

    fn add_namespaced_kinds(known: &mut Known) {
        use k8s_openapi::api as k;
        add_all!(
            known,
            true,
            k::apps::v1::ControllerRevision,
            k::apps::v1::DaemonSet,
            k::apps::v1::Deployment,
            k::apps::v1::ReplicaSet,
            k::apps::v1::StatefulSet,
            k::autoscaling::v1::HorizontalPodAutoscaler,
            k::autoscaling::v2::HorizontalPodAutoscaler,
            k::batch::v1::CronJob,
            k::batch::v1::Job,
            k::coordination::v1::Lease,
            k::core::v1::ConfigMap,
            k::core::v1::Endpoints,
            k::core::v1::Event,
            k::core::v1::LimitRange,
            k::core::v1::PersistentVolumeClaim,
            k::core::v1::Pod,
            k::core::v1::PodTemplate,
            k::core::v1::ReplicationController,
            k::core::v1::ResourceQuota,
            k::core::v1::Secret,
            k::core::v1::Service,
            k::core::v1::ServiceAccount,
            k::discovery::v1::EndpointSlice,
            k::events::v1::Event,
            k::networking::v1::Ingress,
            k::networking::v1::NetworkPolicy,
            k::policy::v1::PodDisruptionBudget,
            k::rbac::v1::Role,
            k::rbac::v1::RoleBinding,
            k::resource::v1::ResourceClaim,
            k::resource::v1::ResourceClaimTemplate,
            k::storage::v1::CSIStorageCapacity,
        );
    }

    fn add<K, S>(known: &mut Known, namespaced: bool)
    where
        K: k8s_openapi::Resource<Scope = S>,
        S: k8s_openapi::ResourceScope,
    {
        let entry = (K::URL_PATH_SEGMENT, K::KIND, namespaced);
        known.entry(K::API_VERSION.to_owned()).or_default().insert(entry);
    }

    #[test]
    fn every_kind_of_the_release_is_listed_once() {
        let mut listed: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        let kinds = all();
        for kind in &kinds {
            let entry = (kind.resource.as_str(), kind.gvk.kind.as_str(), kind.namespaced);
            assert!(
                listed.entry(kind.gvk.api_version()).or_default().insert(entry),
                "{} twice",
                kind.gvk
            );
        }
        let known = known();
        assert_eq!(listed.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
        for (version, kinds) in &known {
            assert_eq!(&listed[version], kinds, "{version}");
        }
    }

    #[test]
    fn names_are_discoverys() {
        let kinds = all();
        let find = |group: &str, resource: &str| {
            let mut found = kinds.iter().filter(|kind| kind.gvk.group == group);
            found.find(|kind| kind.resource == resource).unwrap()
        };
        for (group, resource, singular, short, category) in [
            ("", "pods", "pod", "po", "all"),
            ("", "endpoints", "endpoints", "ep", ""),
            ("apps", "deployments", "deployment", "deploy", "all"),
            ("networking.k8s.io", "ingresses", "ingress", "ing", ""),
            ("policy", "poddisruptionbudgets", "poddisruptionbudget", "pdb", ""),
            ("batch", "jobs", "job", "", "all"),
        ] {
            let kind = find(group, resource);
            assert_eq!(kind.singular, singular);
            assert_eq!(kind.short_names.join(","), short);
            assert_eq!(kind.categories.join(","), category);
        }
        let namespaces = find("", "namespaces");
        assert!(!namespaces.verbs.iter().any(|verb| verb == "deletecollection"));
        let events = find("events.k8s.io", "events");
        assert_eq!(events.storage, ("events".to_owned(), String::new()));
        assert_eq!(events.storage_version, Gvk::new("", "v1", "Event"));
    }

    /// Whatever a client sends, a strategy answers and never panics; a row has a cell per column.
    #[test]
    fn no_strategy_minds_a_strange_object() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let deep = json!({"list": [1, "a", null, {"x": {}}], "map": {"a": []}});
        for kind in all() {
            let strategy = kind.strategy.as_ref();
            for part in [json!({}), json!(null), json!([]), json!("x"), json!(-1), deep.clone()] {
                let old = json!({
                    "apiVersion": kind.gvk.api_version(), "kind": kind.gvk.kind,
                    "metadata": {"name": "a", "uid": "u"},
                    "spec": part, "status": part, "data": part, "subsets": part, "rules": part,
                    "webhooks": part, "endpoints": part, "roleRef": part, "template": part,
                });
                let made = testing::created(strategy, old.clone());
                testing::errors_of_create(strategy, &made);
                for sub in ["", "status", "finalize", "approval", "resize", "ephemeralcontainers"] {
                    let new = testing::updated(strategy, sub, old.clone(), &made);
                    testing::errors_of_update(strategy, sub, &new, &made);
                }
                let (columns, cells) = (strategy.columns(), strategy.cells(&made, now));
                assert_eq!(columns.len(), cells.len(), "{}", kind.gvk);
                assert_eq!(
                    strategy.selectable_fields(&made).len(),
                    strategy.selectable_names().len(),
                    "{}",
                    kind.gvk
                );
                let mut once = made;
                strategy.default(&mut once);
                let mut twice: Value = once.clone();
                strategy.default(&mut twice);
                assert_eq!(once, twice, "{}: defaults must be idempotent", kind.gvk);
                strategy.convert(once, &kind.storage_version).unwrap();
            }
        }
    }
}
