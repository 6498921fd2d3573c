//! Keeps the EndpointSlices of each Service with a selector: at most a hundred endpoints a slice,
//! as few slices touched as can be.
//!
//! Why so careful: a slice goes to every node, so a change of one pod should cost one slice
//! (upstream's `endpointslice/reconciler.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::pods::{is_ready, namespace_is_ending, node_name};
use super::service_pods::{self, HEADLESS, Port, TRIGGER_TIME};
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};

/// Endpoints in one slice; the rest goes into further slices.
const SLICE_ENDPOINTS_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The index of slices by "namespace/service".
const BY_SERVICE: &str = "service";

fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let given = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let named = |family: &str| given.iter().any(|it| it == family);
    let mut families: Vec<&'static str> =
        ["IPv4", "IPv6"].into_iter().filter(|it| named(it)).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    families
}

fn endpoint(service: &Service, pod: &Pod, zone: Option<String>, family: &str) -> Option<Endpoint> {
    let addresses: Vec<String> = service_pods::addresses(pod)
        .into_iter()
        .filter(|address| address.is_ipv6() == (family == "IPv6"))
        .map(|address| address.to_string())
        .collect();
    let (serving, terminating) = (is_ready(pod), pod.is_deleting());
    let ready = service_pods::publishes_not_ready(service) || (serving && !terminating);
    (!addresses.is_empty()).then(|| Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service_pods::hostname(service, pod),
        node_name: Some(node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(service_pods::target_ref(pod)),
        zone,
        ..Endpoint::default()
    })
}

/// What makes an endpoint the same one after a change of its conditions.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|reference| reference.uid.clone());
    (endpoint.addresses.clone(), endpoint.node_name.clone(), uid)
}

fn list(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn slice_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let convert = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(convert).collect()
}

/// A slice's ports in a form that compares without order.
fn port_key(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port.unwrap_or(0),
            protocol: port.protocol.clone().unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != SERVICE_NAME && key != MANAGED_BY && key != HEADLESS);
    if !service_pods::has_address(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

/// What a Service's slices should be.
struct Planner<'a> {
    service: &'a Service,
    labels: BTreeMap<String, String>,
    trigger: Option<String>,
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<EndpointSlice>,
}

impl Planner<'_> {
    fn new_slice(&self, ports: &[Port], family: &str) -> EndpointSlice {
        let mut slice = EndpointSlice {
            address_type: family.to_owned(),
            endpoints: Some(Vec::new()),
            ports: Some(slice_ports(ports)),
            ..EndpointSlice::default()
        };
        slice.metadata.generate_name = Some(format!("{}-", self.service.name()));
        slice.metadata.namespace = self.service.metadata.namespace.clone();
        slice.metadata.labels = Some(self.labels.clone());
        slice.metadata.owner_references = Some(vec![self.service.owner_reference()]);
        slice
    }

    /// Fits the wanted endpoints of one set of ports into its slices: those that must change
    /// anyway are filled first, then one with room for all that is left, then new ones.
    fn fit(
        &mut self,
        present: Vec<Arc<EndpointSlice>>,
        wanted: Vec<Endpoint>,
        ports: &[Port],
        family: &str,
    ) {
        let mut wanted: BTreeMap<_, _> =
            wanted.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let (mut touched, mut untouched) = (Vec::new(), Vec::new());
        for old in present {
            let kept: Vec<Endpoint> =
                list(&old).iter().filter_map(|it| wanted.remove(&identity(it))).collect();
            let mut slice = (*old).clone();
            slice.metadata.labels = Some(self.labels.clone());
            let relabelled = slice.metadata.labels != old.metadata.labels;
            if kept == list(&old) {
                let list = if relabelled { &mut touched } else { &mut untouched };
                list.push(slice);
            } else if kept.is_empty() {
                self.delete.push((*old).clone());
            } else {
                slice.endpoints = Some(kept);
                touched.push(slice);
            }
        }
        let mut left: Vec<Endpoint> = wanted.into_values().collect();
        touched.sort_by_key(|slice| std::cmp::Reverse(list(slice).len()));
        for slice in &mut touched {
            let room = SLICE_ENDPOINTS_MAX.saturating_sub(list(slice).len()).min(left.len());
            slice.endpoints.get_or_insert_default().extend(left.drain(..room));
        }
        self.update.append(&mut touched);
        while !left.is_empty() {
            let fits =
                |slice: &EndpointSlice| list(slice).len() + left.len() <= SLICE_ENDPOINTS_MAX;
            let fullest = (0..untouched.len())
                .filter(|at| fits(&untouched[*at]))
                .max_by_key(|at| list(&untouched[*at]).len());
            if let Some(at) = fullest {
                let mut slice = untouched.swap_remove(at);
                slice.endpoints.get_or_insert_default().append(&mut left);
                self.update.push(slice);
                return;
            }
            let mut slice = self.new_slice(ports, family);
            slice.endpoints = Some(left.drain(..left.len().min(SLICE_ENDPOINTS_MAX)).collect());
            self.create.push(slice);
        }
    }

    /// A slice to delete that a slice to make could take over is changed instead.
    fn finish(mut self) -> Vec<Change> {
        let mut deletes = Vec::new();
        for old in std::mem::take(&mut self.delete) {
            let owned = old.controller().is_some_and(|owner| owner.uid == self.service.uid());
            let heir = self.create.last().filter(|new| new.address_type == old.address_type);
            if owned
                && heir.is_some()
                && let Some(mut new) = self.create.pop()
            {
                new.metadata = old.metadata;
                new.metadata.labels = Some(self.labels.clone());
                self.update.push(new);
            } else {
                deletes.push(Change::delete(&old));
            }
        }
        let deleting = self.service.is_deleting();
        let stamp = |mut slice: EndpointSlice| {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            match &self.trigger {
                Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.clone()),
                None => annotations.remove(TRIGGER_TIME),
            };
            slice
        };
        let creates = self.create.into_iter().filter(|_| !deleting).map(stamp);
        let creates: Vec<Change> = creates.map(|slice| Change::create(&slice)).collect();
        let updates = self.update.into_iter().map(stamp).map(|slice| Change::update(&slice));
        creates.into_iter().chain(updates).chain(deletes).collect()
    }
}

/// The changes that make `present` (slices of ours) what the Service's pods call for. `zone_of`
/// answers `None` for a node that does not exist.
fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    present: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<Option<String>>,
) -> Vec<Change> {
    let trigger = service_pods::trigger_time(service, pods.iter().map(|pod| &**pod));
    let mut planner = Planner {
        service,
        labels: labels(service),
        trigger: trigger.map(|time| time.to_string()),
        create: Vec::new(),
        update: Vec::new(),
        delete: Vec::new(),
    };
    let families = families(service);
    let stray = present.iter().filter(|slice| !families.contains(&slice.address_type.as_str()));
    planner.delete.extend(stray.map(|slice| (**slice).clone()));
    for family in families {
        let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| service_pods::may_serve(pod, true)) {
            let zone = zone_of(node_name(pod));
            if zone.is_none() && !service_pods::publishes_not_ready(service) {
                continue;
            }
            if let Some(endpoint) = endpoint(service, pod, zone.flatten(), family) {
                wanted.entry(service_pods::ports(service, pod)).or_default().push(endpoint);
            }
        }
        let mut by_ports: BTreeMap<Vec<Port>, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        let mine = present.iter().filter(|slice| slice.address_type == family);
        let (mut kept, before) = (0, planner.create.len());
        for slice in mine {
            if slice.controller().is_some_and(|owner| owner.uid == service.uid()) {
                by_ports.entry(port_key(slice)).or_default().push(slice.clone());
                kept += 1;
            } else {
                planner.delete.push((**slice).clone());
            }
        }
        let deleted = planner.delete.len();
        for (ports, endpoints) in wanted {
            let present = by_ports.remove(&ports).unwrap_or_default();
            planner.fit(present, endpoints, &ports, family);
        }
        // What is left has ports that nobody serves; an empty one without ports is the placeholder
        // that says "this Service has no endpoints", of which one stays.
        let leftover: Vec<_> = by_ports.into_values().flatten().collect();
        let gone = planner.delete.len() - deleted;
        let alone = planner.create.len() == before && kept == gone + leftover.len();
        let placeholder = |slice: &EndpointSlice| {
            list(slice).is_empty() && slice.ports.iter().flatten().next().is_none()
        };
        let stays = alone.then(|| leftover.iter().position(|slice| placeholder(slice))).flatten();
        if let Some(at) = stays {
            let mut slice = (*leftover[at]).clone();
            if slice.metadata.labels.as_ref() != Some(&planner.labels) {
                slice.metadata.labels = Some(planner.labels.clone());
                planner.update.push(slice);
            }
        } else if alone {
            let slice = planner.new_slice(&[], family);
            planner.create.push(slice);
        }
        let doomed = leftover.iter().enumerate().filter(|(at, _)| Some(*at) != stays);
        planner.delete.extend(doomed.map(|(_, slice)| (**slice).clone()));
    }
    planner.finish()
}

/// The controller.
pub struct Slices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

impl Slices {
    /// Over shared informers.
    pub fn new(informers: &Informers) -> Self {
        let slices: Informer<EndpointSlice> = informers.of();
        slices.add_index(BY_SERVICE, |slice| {
            service_of(slice).map(|it| it.to_string()).into_iter().collect()
        });
        Self { services: informers.of(), pods: informers.of(), nodes: informers.of(), slices }
    }
}

/// The Service of a slice that is ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let ours = slice.label(MANAGED_BY) == Some(CONTROLLER);
    let name = slice.label(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(slice.namespace(), name))
}

#[async_trait]
impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![
            Arc::new(self.services.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.nodes.clone()),
            Arc::new(self.slices.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.services.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let mut subscriptions = service_pods::watch(&self.services, &self.pods, queue);
        let own = queue.clone();
        subscriptions.push(self.slices.subscribe(move |notice| {
            for key in notice.both().filter_map(|slice| service_of(slice)) {
                own.add(key);
            }
        }));
        // A node that comes, goes or moves to another zone concerns every Service.
        let (services, queue) = (self.services.clone(), queue.clone());
        subscriptions.push(self.nodes.subscribe(move |notice| {
            let zone = |node: &Arc<Node>| node.label(ZONE).map(str::to_owned);
            if notice.old.map(zone) != notice.new.map(zone) {
                for key in services.keys() {
                    queue.add(key);
                }
            }
        }));
        subscriptions
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        // Slices of a Service that is gone are the garbage collector's.
        let Some(service) = self.services.at(key) else { return Ok(Action::Await) };
        let Some(selector) = service_pods::selector(&service) else { return Ok(Action::Await) };
        let mut pods = self.pods.list(&key.namespace);
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        let present = self.slices.by(BY_SERVICE, &key.to_string());
        let zone_of =
            |name: &str| self.nodes.get("", name).map(|node| node.label(ZONE).map(str::to_owned));
        for change in plan(&service, &pods, &present, zone_of) {
            match pass.apply(change).await {
                Err(status) if namespace_is_ending(&status) => return Ok(Action::Await),
                other => other?,
            };
        }
        Ok(Action::Await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service() -> Service {
        let service = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s",
            "labels": {"a": "b"}}, "spec": {"clusterIP": "10.43.0.5", "selector": {"app": "web"},
            "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": 8080}]}});
        serde_json::from_value(service).unwrap()
    }

    fn pod(number: usize, ready: bool) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", number / 250, number % 250);
        let status = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": format!("p{number}"), "namespace": "ns",
            "uid": format!("p{number}")}, "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn zone(_: &str) -> Option<Option<String>> {
        Some(Some("z".to_owned()))
    }

    /// Does what the changes say, as a server would.
    fn apply(mut slices: Vec<Arc<EndpointSlice>>, changes: &[Change]) -> Vec<Arc<EndpointSlice>> {
        for (at, change) in changes.iter().enumerate() {
            let read =
                |value: &Value| -> EndpointSlice { serde_json::from_value(value.clone()).unwrap() };
            match change {
                Change::Create { object, .. } => {
                    let mut slice = read(object);
                    slice.metadata.name = Some(format!("new{}-{at}", slices.len()));
                    slice.metadata.uid = slice.metadata.name.clone();
                    slices.push(Arc::new(slice));
                }
                Change::Update { object, target } => {
                    let old = slices.iter_mut().find(|old| old.name() == target.name).unwrap();
                    *old = Arc::new(read(object));
                }
                Change::Delete { target, .. } => slices.retain(|old| old.name() != target.name),
                other => panic!("{other:?}"),
            }
        }
        slices
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        slices.iter().map(|slice| list(slice).len()).collect()
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice_that_is_reused() {
        let service = service();
        let none = apply(Vec::new(), &plan(&service, &[], &[], zone));
        assert_eq!(sizes(&none), [0]);
        assert_eq!(none[0].label(SERVICE_NAME), Some("web"));
        assert_eq!(plan(&service, &[], &none, zone), []);
        let changes = plan(&service, &[pod(1, true)], &none, zone);
        let one = apply(none, &changes);
        assert_eq!((changes.len(), sizes(&one)), (1, vec![1]));
        let endpoint = &list(&one[0])[0];
        assert_eq!(endpoint.zone.as_deref(), Some("z"));
        assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(true));
        assert_eq!(one[0].ports.as_ref().unwrap()[0].port, Some(8080));
        let changes = plan(&service, &[], &one, zone);
        assert_eq!(sizes(&apply(one, &changes)), [0]);
    }

    #[test]
    fn a_change_of_one_pod_touches_one_slice() {
        let service = service();
        let mut pods: Vec<_> = (0..250).map(|number| pod(number, true)).collect();
        let slices = apply(Vec::new(), &plan(&service, &pods, &[], zone));
        assert_eq!(sizes(&slices), [100, 100, 50]);
        assert_eq!(plan(&service, &pods, &slices, zone), []);
        pods[7] = pod(7, false);
        let changes = plan(&service, &pods, &slices, zone);
        assert_eq!(changes.len(), 1);
        let slices = apply(slices, &changes);
        pods.remove(8);
        pods.push(pod(999, true));
        let changes = plan(&service, &pods, &slices, zone);
        assert_eq!(changes.len(), 1, "the new one takes the freed place");
        assert_eq!(sizes(&apply(slices, &changes)), [100, 100, 50]);
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready() {
        let mut ending = (*pod(1, true)).clone();
        ending.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let slices = apply(Vec::new(), &plan(&service(), &[Arc::new(ending)], &[], zone));
        let conditions = list(&slices[0])[0].conditions.clone().unwrap();
        assert_eq!(conditions.ready, Some(false));
        assert_eq!(conditions.serving, Some(true));
        assert_eq!(conditions.terminating, Some(true));
    }
}
