//! Carries Services and EndpointSlices from the informers to the proxy and to DNS.
//!
//! Why one loop for both: each needs the same thing, the present state of the Services that changed.
//! A change marks the Service's key; while a pass runs, marks gather, so that a storm of changes
//! becomes few passes, and a pass plans only what is marked.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::dns::records;
use super::dns::server::Server;
use super::dns::zone::Zone;
use super::proxy::Proxy;
use super::proxy::plan::ServiceState;
use crate::reconcile::informer::{Followed, Subscription};
use crate::reconcile::{Informer, Informers, Object, ObjectKey};

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The informer's index by that label.
const BY_SERVICE: &str = "service";

/// Keys of Services to look at again.
#[derive(Default)]
pub struct Marks {
    keys: Mutex<BTreeSet<ObjectKey>>,
    wake: Notify,
}

impl Marks {
    fn add(&self, key: ObjectKey) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }

    /// Wakes the loop though no Service changed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// The loop's parts; they outlive a restart of the loop.
pub struct Feed {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    marks: Arc<Marks>,
    proxy: Arc<Mutex<Proxy>>,
    dns: Arc<Server>,
    zone: Mutex<Zone>,
    domain: String,
    ready: watch::Sender<bool>,
    _subscriptions: [Subscription; 2],
}

impl Feed {
    /// Subscribes to the informers.
    pub fn new(
        informers: &Informers,
        proxy: Arc<Mutex<Proxy>>,
        dns: Arc<Server>,
        zone: Zone,
        domain: &str,
    ) -> Self {
        let services = informers.of::<Service>();
        let slices = informers.of::<EndpointSlice>();
        slices.add_index(BY_SERVICE, |slice| {
            service_of(slice).map(|key| key.to_string()).into_iter().collect()
        });
        let marks = Arc::new(Marks::default());
        let (of_service, of_slice) = (marks.clone(), marks.clone());
        let subscriptions = [
            services.subscribe(move |notice| {
                notice.newest().into_iter().for_each(|service| of_service.add(service.key()));
            }),
            slices.subscribe(move |notice| {
                // A slice may have changed hands.
                notice.both().filter_map(|slice| service_of(slice)).for_each(|k| of_slice.add(k));
            }),
        ];
        Self {
            services,
            slices,
            marks,
            proxy,
            dns,
            zone: Mutex::new(zone),
            domain: domain.to_owned(),
            ready: watch::channel(false).0,
            _subscriptions: subscriptions,
        }
    }

    /// What wakes the loop.
    pub fn marks(&self) -> Arc<Marks> {
        self.marks.clone()
    }

    /// True from the first complete pass on.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until `stop`. The first pass waits until all Services and EndpointSlices are known: what
    /// a former process left in the kernel must not be taken away for want of news.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = async { tokio::join!(self.services.synced(), self.slices.synced()); } => {}
            () = stop.cancelled() => return Ok(()),
        }
        loop {
            self.pass().await?;
            tokio::select! {
                () = self.marks.wake.notified() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn pass(&self) -> anyhow::Result<()> {
        let keys = std::mem::take(&mut *self.marks.keys.lock());
        let changed: Vec<_> = keys.into_iter().map(|key| (key.clone(), self.state(&key))).collect();
        let services = changed.len();
        self.publish(&changed);
        let proxy = self.proxy.clone();
        let done = tokio::task::spawn_blocking(move || proxy.lock().sync(changed)).await?;
        done.context("change the service rules")?;
        if !self.ready.send_replace(true) {
            tracing::info!(services, "service rules and DNS are complete");
        }
        Ok(())
    }

    fn publish(&self, changed: &[(ObjectKey, Option<ServiceState>)]) {
        let mut zone = self.zone.lock();
        for (key, state) in changed {
            let records = state.as_ref().map(|state| records::plan(state, &self.domain));
            zone.set(key.clone(), records.unwrap_or_default());
        }
        zone.complete();
        self.dns.snapshot.store(Arc::new(zone.snapshot()));
    }

    fn state(&self, key: &ObjectKey) -> Option<ServiceState> {
        let service = self.services.at(key)?;
        Some(ServiceState { service, slices: self.slices.by(BY_SERVICE, &key.to_string()) })
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    slice.label(SERVICE_NAME_LABEL).map(|name| ObjectKey::new(slice.namespace(), name))
}
