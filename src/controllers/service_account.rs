//! Keeps two things in each namespace: the service account `default` and the ConfigMap
//! `kube-root-ca.crt`.
//!
//! Why together: both are "this one object stands in every live namespace as it should", with
//! another object and another user.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};

use super::pods::namespace_is_ending;
use crate::object::status::Result;
use crate::reconcile::change::Pass;
use crate::reconcile::driver::{Action, Controller};
use crate::reconcile::informer::{Followed, Informer, Informers, Subscription};
use crate::reconcile::queue::Queue;
use crate::reconcile::{Change, Object, ObjectKey};

/// The name of the ConfigMap with the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the \
    kube-apiserver when using internal endpoints such as the internal service IP or \
    kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
    clusters.";

/// The wanted object of a namespace, given the one that stands; `None` when that is right.
type Wanted<T> = Box<dyn Fn(&str, Option<&T>) -> Option<T> + Send + Sync>;

/// The controller of one object a namespace.
pub struct InEachNamespace<T: Object> {
    name: &'static str,
    object: &'static str,
    namespaces: Informer<Namespace>,
    objects: Informer<T>,
    wanted: Wanted<T>,
}

/// Keeps the service account `default`.
pub fn default_accounts(informers: &Informers) -> InEachNamespace<ServiceAccount> {
    InEachNamespace {
        name: "serviceaccount",
        object: "default",
        namespaces: informers.of(),
        objects: informers.of(),
        wanted: Box::new(|namespace, present| {
            let mut account = ServiceAccount::default();
            account.metadata.namespace = Some(namespace.to_owned());
            account.metadata.name = Some("default".to_owned());
            present.is_none().then_some(account)
        }),
    }
}

/// Keeps the ConfigMap with the CA's certificate (PEM).
pub fn root_ca(informers: &Informers, certificate: String) -> InEachNamespace<ConfigMap> {
    InEachNamespace {
        name: "root-ca-certificate-publisher",
        object: ROOT_CA,
        namespaces: informers.of(),
        // Only these: nobody here needs all ConfigMaps of the cluster in memory.
        objects: informers.selected("", &format!("metadata.name={ROOT_CA}")),
        wanted: Box::new(move |namespace, present| {
            let data = std::collections::BTreeMap::from([("ca.crt".into(), certificate.clone())]);
            let described = present.is_some_and(|map| {
                map.annotation("kubernetes.io/description") == Some(ROOT_CA_DESCRIPTION)
            });
            if described && present.is_some_and(|map| map.data.as_ref() == Some(&data)) {
                return None;
            }
            let mut map = present.cloned().unwrap_or_default();
            map.metadata.namespace = Some(namespace.to_owned());
            map.metadata.name = Some(ROOT_CA.to_owned());
            let annotations = map.metadata.annotations.get_or_insert_default();
            annotations.insert("kubernetes.io/description".into(), ROOT_CA_DESCRIPTION.into());
            map.data = Some(data);
            Some(map)
        }),
    }
}

#[async_trait]
impl<T: Object> Controller for InEachNamespace<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Arc<dyn Followed>> {
        vec![Arc::new(self.namespaces.clone()), Arc::new(self.objects.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.namespaces.keys()
    }

    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
        let own = queue.clone();
        let namespaces = self.namespaces.subscribe(move |notice| {
            own.add(notice.newest().map(|namespace| namespace.key()).unwrap_or_default());
        });
        let (queue, name) = (queue.clone(), self.object);
        let objects = self.objects.subscribe(move |notice| {
            if let Some(object) = notice.newest().filter(|object| object.name() == name) {
                queue.add(ObjectKey::new("", object.namespace()));
            }
        });
        vec![namespaces, objects]
    }

    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
        let live = self.namespaces.at(key).filter(|namespace| !namespace.is_deleting());
        if live.is_none() {
            return Ok(Action::Await);
        }
        let present = self.objects.get(&key.name, self.object);
        let Some(wanted) = (self.wanted)(&key.name, present.as_deref()) else {
            return Ok(Action::Await);
        };
        let change = match present {
            Some(_) => Change::update(&wanted),
            None => Change::create(&wanted),
        };
        match pass.apply(change).await {
            Err(status) if status.is_already_exists() || namespace_is_ending(&status) => {}
            Err(status) => return Err(status),
            Ok(_) => {}
        }
        Ok(Action::Await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;
    use crate::stdx::clock::SystemClock;
    use crate::stdx::tasks::Tasks;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn a_changed_certificate_is_published_again() {
        let server = FakeServer::new(SystemClock::shared());
        let tasks = Tasks::new();
        let informers = Informers::new(server.client(), &tasks);
        let publisher = root_ca(&informers, "PEM".to_owned());
        let first = (publisher.wanted)("ns", None).unwrap();
        assert_eq!(first.data.as_ref().unwrap()["ca.crt"], "PEM");
        assert_eq!((publisher.wanted)("ns", Some(&first)), None);
        let mut edited = first.clone();
        edited.data.as_mut().unwrap().insert("ca.crt".to_owned(), "other".to_owned());
        edited.metadata.labels = serde_json::from_value(json!({"mine": "yes"})).unwrap();
        let mended = (publisher.wanted)("ns", Some(&edited)).unwrap();
        assert_eq!(mended.data, first.data);
        assert_eq!(mended.label("mine"), Some("yes"));
        tasks.shutdown().await;
    }
}
