//! Every kind that the server answers, one line each.
//!
//! Why one table: names, short names, categories and subresources must be upstream's to the letter
//! (its `api/discovery`), and a reader finds a kind's strategy beside its names. Adding a kind is a
//! file with its strategy and a line here.

use std::sync::Arc;

use super::{
    Row, SCALE, admissionregistration, apps, autoscaling, batch, certificates, coordination, core,
    discovery, extensions, flowcontrol, networking, node, policy, rbac, resource, scheduling,
    storage,
};
use crate::api::kind::Subresource;

const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const fn special(
    name: &'static str,
    verbs: &'static [&'static str],
    body: (&'static str, &'static str, &'static str),
) -> Subresource {
    Subresource::Special { name, verbs, body }
}

const POD: &[Subresource] = &[
    special("attach", CONNECT, ("", "v1", "PodAttachOptions")),
    special("binding", &["create"], ("", "v1", "Binding")),
    special("ephemeralcontainers", GET_PATCH_UPDATE, ("", "v1", "Pod")),
    special("eviction", &["create"], ("policy", "v1", "Eviction")),
    special("exec", CONNECT, ("", "v1", "PodExecOptions")),
    special("log", &["get"], ("", "v1", "Pod")),
    special("portforward", CONNECT, ("", "v1", "PodPortForwardOptions")),
    special("proxy", PROXY, ("", "v1", "PodProxyOptions")),
    special("resize", GET_PATCH_UPDATE, ("", "v1", "Pod")),
    Subresource::Status,
];
const NODE: &[Subresource] =
    &[special("proxy", PROXY, ("", "v1", "NodeProxyOptions")), Subresource::Status];
const SERVICE: &[Subresource] =
    &[special("proxy", PROXY, ("", "v1", "ServiceProxyOptions")), Subresource::Status];
const NAMESPACE: &[Subresource] =
    &[special("finalize", &["update"], ("", "v1", "Namespace")), Subresource::Status];
const SERVICE_ACCOUNT: &[Subresource] =
    &[special("token", &["create"], ("authentication.k8s.io", "v1", "TokenRequest"))];
const CSR: &[Subresource] = &[
    special(
        "approval",
        GET_PATCH_UPDATE,
        ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
    ),
    Subresource::Status,
];
const STATUS: &[Subresource] = &[Subresource::Status];

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

// Why objects of a kind have no effect yet; the client reads it as a warning.
const NO_WEBHOOKS: &str = "admission webhooks are not called yet";
const NO_POLICIES: &str = "admission policies are not evaluated yet";
const NO_CRD: &str = "custom resources are not served yet";
const NO_AGGREGATION: &str = "aggregated API servers are not reached yet";
const NO_DAEMONSET: &str = "the DaemonSet controller is not built yet: no pods will be made";
const NO_STATEFULSET: &str = "the StatefulSet controller is not built yet: no pods will be made";
const NO_CRONJOB: &str = "the CronJob controller is not built yet: no jobs will be made";
const NO_HPA: &str = "the autoscaler is not built yet: nothing will be scaled";
const NO_PDB: &str = "the disruption controller is not built yet: the budget's status stays empty";
const NO_INGRESS: &str = "the ingress controller is not built yet: nothing will be routed";
const NO_NETPOL: &str = "network policies are not enforced yet";
const NO_CIDR: &str = "further service ranges are not used yet";
const NO_VOLUMES: &str = "persistent volumes are not bound or mounted yet";
const NO_QUOTA: &str = "resource quotas are not enforced yet";
const NO_LIMITS: &str = "limit ranges are not enforced yet";
const NO_SIGNER: &str = "no signer is built yet: the request will not be signed";
const NO_FAIRNESS: &str = "priority and fairness is not built yet";
const NO_RUNTIME: &str = "runtime classes are not honoured yet";
const NO_DRA: &str = "dynamic resource allocation is not built yet";

/// Every persisted kind.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = core_group();
    rows.extend(workloads());
    rows.extend(admission());
    rows.extend(extensions_and_access());
    rows.extend(networking_and_discovery());
    rows.extend(scheduling_and_storage());
    rows
}

fn core_group() -> Vec<Row> {
    let row = |kind, resource, strategy| Row::new("", "v1", kind, resource, strategy);
    vec![
        row("ConfigMap", "configmaps", || Arc::new(core::configmap::ConfigMap)).short("cm"),
        row("Endpoints", "endpoints", || Arc::new(core::endpoints::ENDPOINTS))
            .short("ep")
            .singular("endpoints"),
        row("Event", "events", || Arc::new(core::event::Event { new_names: false })).short("ev"),
        row("LimitRange", "limitranges", || Arc::new(core::limitrange::LIMIT_RANGE))
            .short("limits")
            .inert(NO_LIMITS),
        row("Namespace", "namespaces", || Arc::new(core::namespace::Namespace))
            .short("ns")
            .cluster()
            .sub(NAMESPACE)
            .no_collection(),
        row("Node", "nodes", || Arc::new(core::node::Node)).short("no").cluster().sub(NODE),
        row("PersistentVolumeClaim", "persistentvolumeclaims", || {
            Arc::new(core::persistentvolumeclaim::PersistentVolumeClaim)
        })
        .short("pvc")
        .sub(STATUS)
        .inert(NO_VOLUMES),
        row("PersistentVolume", "persistentvolumes", || {
            Arc::new(core::persistentvolume::PersistentVolume)
        })
        .short("pv")
        .cluster()
        .sub(STATUS)
        .inert(NO_VOLUMES),
        row("Pod", "pods", || Arc::new(core::pod::Pod)).short("po").category("all").sub(POD),
        row("PodTemplate", "podtemplates", || Arc::new(core::podtemplate::POD_TEMPLATE)),
        row("ReplicationController", "replicationcontrollers", || {
            Arc::new(core::replicationcontroller::ReplicationController)
        })
        .short("rc")
        .category("all")
        .sub(SCALE),
        row("ResourceQuota", "resourcequotas", || Arc::new(core::resourcequota::RESOURCE_QUOTA))
            .short("quota")
            .sub(STATUS)
            .inert(NO_QUOTA),
        row("Secret", "secrets", || Arc::new(core::secret::Secret)),
        row("ServiceAccount", "serviceaccounts", || {
            Arc::new(core::serviceaccount::SERVICE_ACCOUNT)
        })
        .short("sa")
        .sub(SERVICE_ACCOUNT),
        row("Service", "services", || Arc::new(core::service::Service))
            .short("svc")
            .category("all")
            .sub(SERVICE),
    ]
}

fn workloads() -> Vec<Row> {
    let apps = |kind, resource, strategy| Row::new("apps", "v1", kind, resource, strategy);
    let batch = |kind, resource, strategy| Row::new("batch", "v1", kind, resource, strategy);
    let hpa = |version| {
        Row::new(
            "autoscaling",
            version,
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            || Arc::new(autoscaling::horizontalpodautoscaler::HorizontalPodAutoscaler),
        )
        .short("hpa")
        .category("all")
        .sub(STATUS)
        .stored_as("v2")
        .inert(NO_HPA)
    };
    vec![
        apps("ControllerRevision", "controllerrevisions", || {
            Arc::new(apps::controllerrevision::CONTROLLER_REVISION)
        }),
        apps("DaemonSet", "daemonsets", || Arc::new(apps::daemonset::DaemonSet))
            .short("ds")
            .category("all")
            .sub(STATUS)
            .inert(NO_DAEMONSET),
        apps("Deployment", "deployments", || Arc::new(apps::deployment::Deployment))
            .short("deploy")
            .category("all")
            .sub(SCALE),
        apps("ReplicaSet", "replicasets", || Arc::new(apps::replicaset::ReplicaSet))
            .short("rs")
            .category("all")
            .sub(SCALE),
        apps("StatefulSet", "statefulsets", || Arc::new(apps::statefulset::StatefulSet))
            .short("sts")
            .category("all")
            .sub(SCALE)
            .inert(NO_STATEFULSET),
        hpa("v1"),
        hpa("v2"),
        batch("CronJob", "cronjobs", || Arc::new(batch::cronjob::CronJob))
            .short("cj")
            .category("all")
            .sub(STATUS)
            .inert(NO_CRONJOB),
        batch("Job", "jobs", || Arc::new(batch::job::Job)).category("all").sub(STATUS),
        Row::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", || {
            Arc::new(policy::poddisruptionbudget::POD_DISRUPTION_BUDGET)
        })
        .short("pdb")
        .sub(STATUS)
        .inert(NO_PDB),
    ]
}

fn admission() -> Vec<Row> {
    let admission = |kind, resource, why, strategy| {
        Row::new(ADMISSION, "v1", kind, resource, strategy)
            .cluster()
            .category("api-extensions")
            .inert(why)
    };
    vec![
        admission("MutatingAdmissionPolicy", "mutatingadmissionpolicies", NO_POLICIES, || {
            Arc::new(admissionregistration::policy::MUTATING)
        }),
        admission(
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            NO_POLICIES,
            || Arc::new(admissionregistration::policybinding::MUTATING),
        ),
        admission(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            NO_WEBHOOKS,
            || Arc::new(admissionregistration::webhook::MUTATING),
        ),
        admission("ValidatingAdmissionPolicy", "validatingadmissionpolicies", NO_POLICIES, || {
            Arc::new(admissionregistration::policy::VALIDATING)
        })
        .sub(STATUS),
        admission(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            NO_POLICIES,
            || Arc::new(admissionregistration::policybinding::VALIDATING),
        ),
        admission(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            NO_WEBHOOKS,
            || Arc::new(admissionregistration::webhook::VALIDATING),
        ),
    ]
}

fn extensions_and_access() -> Vec<Row> {
    let rbac = |kind, resource, strategy| Row::new(RBAC, "v1", kind, resource, strategy);
    vec![
        Row::new(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            || Arc::new(extensions::customresourcedefinition::CustomResourceDefinition),
        )
        .short("crd,crds")
        .cluster()
        .category("api-extensions")
        .sub(STATUS)
        .inert(NO_CRD),
        Row::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", || {
            Arc::new(extensions::apiservice::API_SERVICE)
        })
        .cluster()
        .category("api-extensions")
        .sub(STATUS)
        .inert(NO_AGGREGATION),
        Row::new(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            || Arc::new(certificates::certificatesigningrequest::CertificateSigningRequest),
        )
        .short("csr")
        .cluster()
        .sub(CSR)
        .inert(NO_SIGNER),
        rbac("ClusterRoleBinding", "clusterrolebindings", || {
            Arc::new(rbac::binding::Binding { namespaced: false })
        })
        .cluster(),
        rbac("ClusterRole", "clusterroles", || Arc::new(rbac::role::CLUSTER_ROLE)).cluster(),
        rbac("RoleBinding", "rolebindings", || {
            Arc::new(rbac::binding::Binding { namespaced: true })
        }),
        rbac("Role", "roles", || Arc::new(rbac::role::ROLE)),
        Row::new(FLOW, "v1", "FlowSchema", "flowschemas", || {
            Arc::new(flowcontrol::flowschema::FLOW_SCHEMA)
        })
        .cluster()
        .sub(STATUS)
        .inert(NO_FAIRNESS),
        Row::new(FLOW, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", || {
            Arc::new(flowcontrol::prioritylevelconfiguration::PRIORITY_LEVEL_CONFIGURATION)
        })
        .cluster()
        .sub(STATUS)
        .inert(NO_FAIRNESS),
    ]
}

fn networking_and_discovery() -> Vec<Row> {
    let net = |kind, resource, strategy| Row::new(NETWORKING, "v1", kind, resource, strategy);
    vec![
        Row::new("coordination.k8s.io", "v1", "Lease", "leases", || {
            Arc::new(coordination::lease::LEASE)
        }),
        Row::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", || {
            Arc::new(discovery::endpointslice::ENDPOINT_SLICE)
        }),
        Row::new("events.k8s.io", "v1", "Event", "events", || {
            Arc::new(core::event::Event { new_names: true })
        })
        .short("ev")
        .stored_in_core(),
        net("IngressClass", "ingressclasses", || Arc::new(networking::ingressclass::INGRESS_CLASS))
            .cluster()
            .inert(NO_INGRESS),
        net("Ingress", "ingresses", || Arc::new(networking::ingress::INGRESS))
            .short("ing")
            .sub(STATUS)
            .inert(NO_INGRESS),
        net("IPAddress", "ipaddresses", || Arc::new(networking::ipaddress::IP_ADDRESS))
            .short("ip")
            .cluster(),
        net("NetworkPolicy", "networkpolicies", || {
            Arc::new(networking::networkpolicy::NETWORK_POLICY)
        })
        .short("netpol")
        .inert(NO_NETPOL),
        net("ServiceCIDR", "servicecidrs", || Arc::new(networking::servicecidr::ServiceCidr))
            .cluster()
            .sub(STATUS)
            .inert(NO_CIDR),
    ]
}

fn scheduling_and_storage() -> Vec<Row> {
    let dra =
        |kind, resource, strategy| Row::new(RESOURCE, "v1", kind, resource, strategy).inert(NO_DRA);
    let storage = |kind, resource, strategy| {
        Row::new(STORAGE, "v1", kind, resource, strategy).inert(NO_VOLUMES)
    };
    vec![
        Row::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", || {
            Arc::new(node::runtimeclass::RUNTIME_CLASS)
        })
        .cluster()
        .inert(NO_RUNTIME),
        dra("DeviceClass", "deviceclasses", || Arc::new(resource::deviceclass::DEVICE_CLASS))
            .cluster(),
        dra("ResourceClaim", "resourceclaims", || {
            Arc::new(resource::resourceclaim::RESOURCE_CLAIM)
        })
        .sub(STATUS),
        dra("ResourceClaimTemplate", "resourceclaimtemplates", || {
            Arc::new(resource::resourceclaimtemplate::RESOURCE_CLAIM_TEMPLATE)
        }),
        dra("ResourceSlice", "resourceslices", || {
            Arc::new(resource::resourceslice::RESOURCE_SLICE)
        })
        .cluster(),
        Row::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", || {
            Arc::new(scheduling::priorityclass::PriorityClass)
        })
        .short("pc")
        .cluster(),
        storage("CSIDriver", "csidrivers", || Arc::new(storage::csidriver::CSI_DRIVER)).cluster(),
        storage("CSINode", "csinodes", || Arc::new(storage::csinode::CSI_NODE)).cluster(),
        storage("CSIStorageCapacity", "csistoragecapacities", || {
            Arc::new(storage::csistoragecapacity::CSI_STORAGE_CAPACITY)
        }),
        storage("StorageClass", "storageclasses", || {
            Arc::new(storage::storageclass::STORAGE_CLASS)
        })
        .short("sc")
        .cluster(),
        storage("VolumeAttachment", "volumeattachments", || {
            Arc::new(storage::volumeattachment::VOLUME_ATTACHMENT)
        })
        .cluster()
        .sub(STATUS),
        storage("VolumeAttributesClass", "volumeattributesclasses", || {
            Arc::new(storage::volumeattributesclass::VOLUME_ATTRIBUTES_CLASS)
        })
        .short("vac")
        .cluster(),
    ]
}
