//! Field descriptions for OpenAPI and `explain`, from the k8s-openapi dependency.
//!
//! Why at run time: the texts are upstream's and live in the dependency's schemas; no file of ours
//! copies them. They are collected for one document and dropped with it.

use k8s_openapi::schemars::generate::{SchemaGenerator, SchemaSettings};
use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use std::collections::BTreeMap;

use crate::object::Value;

/// The texts of one type.
#[derive(Debug, Default)]
pub(super) struct Docs {
    /// What the type is.
    pub text: Option<String>,
    /// What its fields are.
    pub fields: BTreeMap<String, String>,
}

/// The texts of all types that groups and versions (as in `apps/v1`; all when none) reach.
pub(super) fn of(groups: &[String]) -> BTreeMap<String, Docs> {
    let mut all = BTreeMap::new();
    for (name, schema) in definitions(groups) {
        let text = |schema: &Value| schema["description"].as_str().map(str::to_owned);
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields =
            properties.filter_map(|(name, schema)| Some((name.clone(), text(schema)?))).collect();
        all.insert(name, Docs { text: text(&schema), fields });
    }
    all
}

/// The dependency's schemas by their full names.
pub(super) fn definitions(groups: &[String]) -> BTreeMap<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    read_meta(&mut generator);
    for (name, read) in GROUPS {
        if groups.is_empty() || groups.iter().any(|group| group == name) {
            read(&mut generator);
        }
    }
    generator.take_definitions(false).into_iter().collect()
}

fn read_meta(generator: &mut SchemaGenerator) {
    use apimachinery::pkg::apis::meta::v1 as meta;
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::APIResourceList>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::ObjectMeta>();
}

/// A group and version, and what reads all its kinds.
type Group = (&'static str, fn(&mut SchemaGenerator));

/// Each group's readers, from a list of its kinds.
macro_rules! groups {
    ($($name:literal $($path:ident)::+ [$($kind:ident),+ $(,)?],)+) => {
        &[$(($name, |generator| {
            use $($path)::+ as group;
            $(generator.subschema_for::<group::$kind>();)+
        })),+]
    };
}

/// Every kind that is served, by its group and version.
const GROUPS: &[Group] = groups! {
    "admissionregistration.k8s.io/v1" api::admissionregistration::v1 [
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    ],
    "apps/v1" api::apps::v1 [ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet],
    "authentication.k8s.io/v1" api::authentication::v1 [
        SelfSubjectReview, TokenRequest, TokenReview,
    ],
    "authorization.k8s.io/v1" api::authorization::v1 [
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
        SubjectAccessReview,
    ],
    "autoscaling/v1" api::autoscaling::v1 [HorizontalPodAutoscaler, Scale],
    "autoscaling/v2" api::autoscaling::v2 [HorizontalPodAutoscaler],
    "batch/v1" api::batch::v1 [CronJob, Job],
    "certificates.k8s.io/v1" api::certificates::v1 [CertificateSigningRequest],
    "coordination.k8s.io/v1" api::coordination::v1 [Lease],
    "v1" api::core::v1 [
        Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
        PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController,
        ResourceQuota, Secret, Service, ServiceAccount,
    ],
    "discovery.k8s.io/v1" api::discovery::v1 [EndpointSlice],
    "events.k8s.io/v1" api::events::v1 [Event],
    "flowcontrol.apiserver.k8s.io/v1" api::flowcontrol::v1 [FlowSchema, PriorityLevelConfiguration],
    "networking.k8s.io/v1" api::networking::v1 [
        IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR,
    ],
    "node.k8s.io/v1" api::node::v1 [RuntimeClass],
    "policy/v1" api::policy::v1 [Eviction, PodDisruptionBudget],
    "rbac.authorization.k8s.io/v1" api::rbac::v1 [
        ClusterRole, ClusterRoleBinding, Role, RoleBinding,
    ],
    "resource.k8s.io/v1" api::resource::v1 [
        DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
    ],
    "scheduling.k8s.io/v1" api::scheduling::v1 [PriorityClass],
    "storage.k8s.io/v1" api::storage::v1 [
        CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
        VolumeAttributesClass,
    ],
    "apiextensions.k8s.io/v1" apiextensions_apiserver::pkg::apis::apiextensions::v1 [
        CustomResourceDefinition,
    ],
    "apiregistration.k8s.io/v1" kube_aggregator::pkg::apis::apiregistration::v1 [APIService],
};
