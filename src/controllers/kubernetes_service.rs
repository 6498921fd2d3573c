//! Keeps what every cluster starts with: the system namespaces, and the Service `kubernetes` with
//! the API servers' addresses behind it.
//!
//! Why a controller: the API server itself does this upstream; here it is a loop like any other that
//! writes through a client with the API server's identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::client::Target;
use crate::object::Status;
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};

/// How often it looks (upstream's figure).
const PERIOD: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where the API servers are.
#[derive(Clone)]
pub struct ApiServers {
    /// The Service's own address, the first of its range.
    pub service_ip: IpAddr,
    /// The addresses that the masters advertise, now.
    pub addresses: Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    /// Their port.
    pub port: u16,
}

impl ApiServers {
    fn service(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "sessionAffinity": "None",
                "clusterIP": self.service_ip.to_string(), "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443,
                    "targetPort": self.port}]}})
    }

    /// The addresses of the Service's family, in order. A loopback address means another host to
    /// each client, and the API refuses it.
    fn same_family(&self) -> Vec<String> {
        let mut addresses = (self.addresses)();
        let family = self.service_ip.is_ipv4();
        addresses.retain(|address| address.is_ipv4() == family && !address.is_loopback());
        addresses.sort();
        addresses.iter().map(ToString::to_string).collect()
    }

    fn endpoints(&self) -> Value {
        let addresses: Vec<Value> =
            self.same_family().into_iter().map(|ip| json!({"ip": ip})).collect();
        let port = json!({"name": "https", "port": self.port, "protocol": "TCP"});
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": addresses, "ports": [port]}]})
    }

    fn slice(&self) -> Value {
        let endpoints: Vec<Value> = self
            .same_family()
            .into_iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect();
        let family = if self.service_ip.is_ipv4() { "IPv4" } else { "IPv6" };
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}]})
    }
}

/// The controller.
pub struct KubernetesService {
    servers: ApiServers,
}

impl KubernetesService {
    /// For these API servers.
    pub fn new(servers: ApiServers) -> Self {
        Self { servers }
    }
}

/// Creates an object that lacks, or brings `parts` of it up to date.
async fn keep<T: Object>(pass: &Pass, wanted: Value, parts: &[&str]) -> Result<()> {
    let object: T = T::from_value(wanted.clone()).map_err(Status::internal)?;
    let mut present = match pass.client().get(&object.target()).await {
        Ok(present) => present,
        Err(status) if status.is_not_found() => {
            let target = Target::all(&T::gvr(), object.namespace());
            return match pass.apply(Change::Create { target, object: wanted }).await {
                Err(status) if !status.is_already_exists() => Err(status),
                _ => Ok(()),
            };
        }
        Err(status) => return Err(status),
    };
    let before = present.clone();
    for part in parts {
        present[*part] = wanted[*part].clone();
    }
    if present != before {
        pass.apply(Change::Update { target: object.target(), object: present }).await?;
    }
    Ok(())
}

#[async_trait]
impl Controller for KubernetesService {
    fn name(&self) -> &'static str {
        "kubernetes-service"
    }

    fn workers(&self) -> usize {
        1
    }

    fn period(&self) -> Duration {
        PERIOD
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        Vec::new()
    }

    fn keys(&self) -> Vec<ObjectKey> {
        vec![ObjectKey::new(NAMESPACE, NAME)]
    }

    fn watch(&self, _queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        Vec::new()
    }

    async fn reconcile(&self, _key: &ObjectKey, pass: &Pass) -> Result<Action> {
        for name in NAMESPACES {
            let wanted = json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name}});
            keep::<Namespace>(pass, wanted, &[]).await?;
        }
        keep::<Service>(pass, self.servers.service(), &[]).await?;
        if self.servers.same_family().is_empty() {
            return Ok(Action::Await);
        }
        keep::<Endpoints>(pass, self.servers.endpoints(), &["subsets"]).await?;
        keep::<EndpointSlice>(pass, self.servers.slice(), &["endpoints", "ports"]).await?;
        Ok(Action::Await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;
    use crate::reconcile::{Executor, Informers, Recorder};
    use crate::stdx::clock::SystemClock;
    use crate::stdx::tasks::Tasks;
    use parking_lot::Mutex;

    #[tokio::test(start_paused = true)]
    async fn the_service_stands_and_follows_the_masters() {
        let server = FakeServer::new(SystemClock::shared());
        let tasks = Tasks::new();
        let masters = Arc::new(Mutex::new(vec!["192.0.2.1".parse().unwrap()]));
        let seen = masters.clone();
        let servers = ApiServers {
            service_ip: "10.43.0.1".parse().unwrap(),
            addresses: Arc::new(move || seen.lock().clone()),
            port: 6443,
        };
        let controller = KubernetesService::new(servers);
        let informers = Informers::new(server.client(), &tasks);
        let recorder =
            Recorder::new(server.client(), SystemClock::shared(), &tasks, "apiserver", "");
        let executor = Executor::new(server.client(), informers, recorder);
        let key = ObjectKey::default();
        controller.reconcile(&key, &executor.pass()).await.unwrap();
        let written = server.revision();
        controller.reconcile(&key, &executor.pass()).await.unwrap();
        assert_eq!(server.revision(), written, "nothing to do twice");
        masters.lock().push("192.0.2.2".parse().unwrap());
        controller.reconcile(&key, &executor.pass()).await.unwrap();
        let slices = server.all(&EndpointSlice::gvr());
        assert_eq!(slices[0]["endpoints"][1]["addresses"][0], "192.0.2.2");
        assert_eq!(server.all(&Namespace::gvr()).len(), 4);
        let services = server.all(&Service::gvr());
        assert_eq!(services[0]["spec"]["clusterIP"], "10.43.0.1");
        tasks.shutdown().await;
    }
}
