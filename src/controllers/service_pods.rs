//! What the endpoint controllers share: which pods stand behind a Service, by which addresses and
//! ports, and which Services a pod's change concerns.
//!
//! Why shared: Endpoints and EndpointSlices of one Service must never disagree.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pods::{self, is_ready, is_terminal};
use crate::object::selector::Selector;
use crate::reconcile::informer::{Informer, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Object, ObjectKey};

/// The label of what belongs to a Service without an address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// The annotation with the time of the change that made an update necessary.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The selector of a Service whose endpoints are kept here; `None` for those that people keep.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    let pairs = spec.selector.as_ref().filter(|_| !external)?;
    Some(Selector::from_pairs(pairs))
}

/// Whether it has an address of its own.
pub fn has_address(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or("");
    !matches!(address, "" | "None")
}

/// Whether pods that are not ready are published, too.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// Whether a pod may stand behind a Service at all.
pub fn may_serve(pod: &Pod, terminating_too: bool) -> bool {
    !is_terminal(pod) && !addresses(pod).is_empty() && (terminating_too || !pod.is_deleting())
}

/// `status.podIPs`.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|it| it.ip.as_str());
    let one = status.pod_ip.as_deref().filter(|_| status.pod_ips.is_none());
    many.chain(one).filter_map(|text| text.parse().ok()).collect()
}

/// The pod's host name, where the Service is the one that its subdomain names.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain.as_deref() == Some(service.name());
    spec.hostname.clone().filter(|name| ours && !name.is_empty())
}

/// A reference to a pod as endpoints carry it.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// One port that a pod serves for a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The Service port's name, or "".
    pub name: String,
    /// The pod's port.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// As in the Service port.
    pub app_protocol: Option<String>,
}

/// The ports that a pod serves for a Service; those whose name it lacks are left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let spec = service.spec.as_ref();
    let mut ports: Vec<Port> = spec
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|wanted| {
            Some(Port {
                name: wanted.name.clone().unwrap_or_default(),
                port: find_port(pod, wanted)?,
                protocol: protocol(wanted).to_owned(),
                app_protocol: wanted.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn find_port(pod: &Pod, wanted: &ServicePort) -> Option<i32> {
    let name = match wanted.target_port.as_ref() {
        None => return Some(wanted.port),
        Some(IntOrString::Int(0)) => return Some(wanted.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|port| {
        port.name.as_ref() == Some(name)
            && port.protocol.as_deref().unwrap_or("TCP") == protocol(wanted)
    });
    found.map(|port| port.container_port)
}

/// When what is published now came to be: the latest of the Service's creation and its pods' last
/// steps. (Upstream remembers each pod's time instead; the figure feeds one latency metric.)
pub fn trigger_time<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<Timestamp> {
    let steps = pods.filter_map(|pod| {
        let ready = pods::condition(pod, "Ready");
        let since = ready.and_then(|ready| ready.last_transition_time.as_ref());
        since.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
    });
    steps.chain(service.metadata.creation_timestamp.as_ref().map(|time| time.0)).max()
}

/// Puts into `queue` the Services that are changed and those whose pods are.
pub fn watch(
    services: &Informer<Service>,
    pods: &Informer<Pod>,
    queue: &Queue<ObjectKey>,
) -> Vec<Subscription> {
    let own = queue.clone();
    let of_services = services.subscribe(move |notice| {
        own.add(notice.newest().map(|service| service.key()).unwrap_or_default());
    });
    let (services, queue) = (services.clone(), queue.clone());
    let of_pods = pods.subscribe(move |notice| {
        if let (Some(old), Some(new)) = (notice.old, notice.new)
            && matters(old) == matters(new)
        {
            return;
        }
        let Some(namespace) = notice.newest().map(|pod| pod.namespace()) else { return };
        for service in services.list(namespace) {
            let Some(selector) = selector(&service) else { continue };
            if notice.both().any(|pod| selector.matches_labels(pod.metadata.labels.as_ref())) {
                queue.add(service.key());
            }
        }
    });
    vec![of_services, of_pods]
}

/// All of a pod that endpoints show.
fn matters(pod: &Pod) -> impl PartialEq {
    let spec = pod.spec.as_ref();
    (
        (pod.uid().to_owned(), pod.metadata.labels.clone(), pod.is_deleting()),
        (is_terminal(pod), is_ready(pod), addresses(pod), pods::node_name(pod).to_owned()),
        spec.map(|spec| (spec.hostname.clone(), spec.subdomain.clone())),
    )
}
