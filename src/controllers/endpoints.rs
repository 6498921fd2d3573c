//! Keeps the Endpoints of each Service with a selector.
//!
//! Why still: the kind is deprecated, and old clients and people read it. New ones read the slices
//! (`endpoint_slices.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};

use super::pods::{is_ready, namespace_is_ending, node_name};
use super::service_pods::{self, HEADLESS, Port, TRIGGER_TIME};
use crate::client::{DeleteOptions, Target};
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, EventType, Object, ObjectKey};

/// Addresses in one Endpoints object; more are cut and the annotation says so.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// The subsets of a Service: the addresses with the same ports stand together. Whether some were
/// cut is the second part.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let tolerant = service_pods::publishes_not_ready(service);
    let mut by_ports: BTreeMap<Vec<Port>, [Vec<EndpointAddress>; 2]> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| service_pods::may_serve(pod, tolerant)) {
        let Some(ip) = address(service, pod) else { continue };
        let ports = service_pods::ports(service, pod);
        let asked = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let portless = asked.is_none_or(Vec::is_empty);
        // Without ports only a headless Service has endpoints.
        if ports.is_empty() && (!portless || service_pods::has_address(service)) {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: service_pods::hostname(service, pod),
            node_name: Some(node_name(pod).to_owned()).filter(|name| !name.is_empty()),
            target_ref: Some(service_pods::target_ref(pod)),
        };
        let ready = tolerant || is_ready(pod);
        by_ports.entry(ports).or_default()[usize::from(!ready)].push(address);
    }
    let total = |side: usize| by_ports.values().map(|both| both[side].len()).sum::<usize>();
    let cut = total(0) + total(1) > ADDRESSES_MAX;
    // The ready ones first: what serves must not give way to what does not.
    let mut room = [ADDRESSES_MAX, ADDRESSES_MAX.saturating_sub(total(0))];
    let subsets = by_ports.into_iter().map(|(ports, mut both)| {
        for (side, addresses) in both.iter_mut().enumerate() {
            addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
            addresses.truncate(room[side]);
            room[side] -= addresses.len();
        }
        let [ready, not_ready] = both;
        EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: some(ports.into_iter().map(endpoint_port).collect()),
        }
    });
    let full = |it: &EndpointSubset| it.addresses.is_some() || it.not_ready_addresses.is_some();
    (subsets.filter(full).collect(), cut)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

/// The pod's address of the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let six = families.and_then(|list| list.first()).is_some_and(|family| family == "IPv6");
    let addresses = service_pods::addresses(pod);
    addresses.into_iter().find(|address| address.is_ipv6() == six).map(|it| it.to_string())
}

/// The wanted object, or `None` when the present one is right.
fn plan(service: &Service, pods: &[Arc<Pod>], present: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, cut) = subsets(service, pods);
    let subsets = some(subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !service_pods::has_address(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut wanted = present.cloned().unwrap_or_default();
    let said = wanted.annotation(OVER_CAPACITY).is_some();
    let same = wanted.subsets == subsets && wanted.metadata.labels.as_ref() == Some(&labels);
    if present.is_some() && same && said == cut {
        return None;
    }
    wanted.metadata.name = service.metadata.name.clone();
    wanted.metadata.namespace = service.metadata.namespace.clone();
    wanted.metadata.labels = Some(labels);
    wanted.subsets = subsets;
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    if let Some(time) = service_pods::trigger_time(service, pods.iter().map(|pod| &**pod)) {
        annotations.insert(TRIGGER_TIME.to_owned(), time.to_string());
    }
    Some(wanted)
}

/// The controller.
pub struct EndpointsOfServices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

impl EndpointsOfServices {
    /// Over shared informers.
    pub fn new(informers: &Informers) -> Self {
        Self { services: informers.of(), pods: informers.of(), endpoints: informers.of() }
    }
}

#[async_trait]
impl Controller for EndpointsOfServices {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![
            Arc::new(self.services.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.endpoints.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        // Endpoints that outlived their Service while nobody looked are visited, too.
        let ours = self.endpoints.list("").into_iter();
        let ours = ours.filter(|it| it.label(MANAGED_BY) == Some(CONTROLLER)).map(|it| it.key());
        self.services.keys().into_iter().chain(ours).collect()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let mut subscriptions = service_pods::watch(&self.services, &self.pods, queue);
        let queue = queue.clone();
        subscriptions.push(self.endpoints.subscribe(move |notice| {
            if let Some(endpoints) = notice.newest() {
                queue.add(endpoints.key());
            }
        }));
        subscriptions
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let present = self.endpoints.at(key);
        let Some(service) = self.services.at(key) else {
            if present.is_some_and(|it| it.label(MANAGED_BY) == Some(CONTROLLER)) {
                let target = Target::object(&Endpoints::gvr(), &key.namespace, &key.name);
                let options = DeleteOptions::default();
                pass.apply(Change::Delete { target, options }).await?;
            }
            return Ok(Action::Await);
        };
        let Some(selector) = service_pods::selector(&service) else { return Ok(Action::Await) };
        let mut pods = self.pods.list(&key.namespace);
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        let Some(wanted) = plan(&service, &pods, present.as_deref()) else {
            return Ok(Action::Await);
        };
        let (change, reason, verb) = match present {
            None => (Change::create(&wanted), "FailedToCreateEndpoint", "create"),
            Some(_) => (Change::update(&wanted), "FailedToUpdateEndpoint", "update"),
        };
        match pass.apply(change).await {
            Ok(_) => Ok(Action::Await),
            Err(status) if namespace_is_ending(&status) => Ok(Action::Await),
            Err(status) => {
                let object = if verb == "create" { "endpoint for service" } else { "endpoint" };
                let message = format!("Failed to {verb} {object} {key}: {status}");
                pass.event(&wanted, EventType::Warning, reason, message);
                Err(status)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(more: Value) -> Service {
        let mut spec = json!({"clusterIP": "10.43.0.5", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": spec}))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, port: i32, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let ports = json!([{"name": "web", "containerPort": port, "protocol": "TCP"}]);
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn addresses_stand_together_by_their_ports() {
        let service = service(json!({}));
        let pods = [
            pod("b", "10.0.0.2", 8080, true),
            pod("a", "10.0.0.1", 8080, true),
            pod("c", "10.0.0.3", 8080, false),
            pod("d", "10.0.0.4", 9090, true),
        ];
        let wanted = plan(&service, &pods, None).unwrap();
        let subsets = wanted.subsets.clone().unwrap();
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        assert_eq!(subsets.len(), 2);
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subsets[1].ports.as_ref().unwrap()[0].port, 9090);
        assert_eq!(plan(&service, &pods, Some(&wanted)), None);
    }

    #[test]
    fn what_serves_is_not_cut_for_what_does_not() {
        let service = service(json!({"clusterIP": "None"}));
        let mut pods: Vec<_> = (0..900)
            .map(|at| pod(&format!("r{at}"), &format!("10.0.{}.{}", at / 250, at % 250), 80, true))
            .collect();
        pods.extend((0..200).map(|at| pod(&format!("n{at}"), &format!("10.1.0.{at}"), 80, false)));
        let wanted = plan(&service, &pods, None).unwrap();
        let subset = &wanted.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 900);
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 100);
        assert_eq!(wanted.annotation(OVER_CAPACITY), Some("truncated"));
        assert_eq!(wanted.label(HEADLESS), Some(""));
    }
}
