//! The node loop: pods from the API and events from the engine go to one worker a pod.
//!
//! Why by level and not by edge: the loop compares what the API and the engine have with what its
//! workers were last told; a change that was missed is found by the next comparison, and a restart
//! is just the first one. The engine's events make it fast, its relist (minutes) makes it safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::engine::{Container, EngineEvent, SharedEngine};
use super::images::Images;
use super::sources::Sources;
use super::worker::{Event, Mailbox, Worker};
use super::{Host, NodeConfig, SharedHost, carried, labels, node, server, volumes};
use crate::client::SharedClient;
use crate::client::node::{SharedNodeStreams, SharedPodNetwork};
use crate::reconcile::informer::Followed;
use crate::reconcile::{Informer, Object, Recorder};
use crate::stdx::backoff::Backoff;
use crate::stdx::clock::SharedClock;
use crate::stdx::tasks::{Policy, Tasks};

/// How often everything on the engine is read anew, in case an event was lost.
const RELIST: Duration = Duration::from_secs(300);
/// Engine events that wait to be handed to workers; at the bound everything is read anew.
const ENGINE_EVENTS_MAX: usize = 4096;
/// How soon a lost engine is asked again.
const ENGINE_RETRY: Policy =
    Policy::Restart(Backoff::new(Duration::from_millis(100), Duration::from_secs(2)));

/// What the engine's task tells the loop.
enum FromEngine {
    /// All our containers, after each (re)connection and each relist.
    Listed(Vec<Container>),
    /// One change.
    Event(EngineEvent),
}

/// The workers by pod uid.
type Roster = Arc<Mutex<BTreeMap<String, Mailbox>>>;

/// A node.
pub struct Node {
    host: SharedHost,
    roster: Roster,
}

impl Node {
    /// A node that does nothing yet. Fails when the machine can't be read.
    pub fn build(
        config: NodeConfig,
        client: SharedClient,
        engine: SharedEngine,
        network: SharedPodNetwork,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let tasks = tasks.child();
        std::fs::create_dir_all(config.data_dir.join("pods"))?;
        let machine = node::machine(&config.data_dir)?;
        let roster = Roster::default();
        let told = roster.clone();
        let on_change = Arc::new(move |uid: &str| {
            if let Some(mailbox) = told.lock().get(uid) {
                mailbox.send(Event::Sources);
            }
        });
        let recorder =
            Recorder::new(client.clone(), clock.clone(), &tasks, "kubelet", &config.name);
        let own = format!("spec.nodeName={}", config.name);
        let itself = format!("metadata.name={}", config.name);
        let host = Host {
            services: Informer::<core::Service>::start(&tasks, client.clone(), "", "", ""),
            pods: Informer::<core::Pod>::start(&tasks, client.clone(), "", "", &own),
            nodes: Informer::<core::Node>::start(&tasks, client.clone(), "", "", &itself),
            sources: Sources::new(client.clone(), tasks.clone(), on_change),
            images: Images::new(clock.clone()),
            engine_info: Default::default(),
            config,
            client,
            engine,
            network,
            clock,
            tasks,
            recorder,
            machine,
        };
        Ok(Self { host: Arc::new(host), roster })
    }

    /// The way to this node's logs, exec and the like.
    pub fn streams(&self) -> SharedNodeStreams {
        Arc::new(server::LocalNode::new(self.host.clone()))
    }

    /// Starts the node's tasks; they stop with the supervisor that it was built under.
    pub fn start(self) {
        let (tasks, host) = (self.host.tasks.clone(), self.host.clone());
        let (up, health) = watch::channel(Err("the container engine has not answered yet".into()));
        let (sender, from_engine) = mpsc::channel(ENGINE_EVENTS_MAX);
        let up = Arc::new(up);
        tasks.spawn("container engine", ENGINE_RETRY, move |_| {
            let (host, up, sender) = (host.clone(), up.clone(), sender.clone());
            async move { follow_engine(&host, &up, &sender).await }
        });
        node::start(&self.host, health);
        let tasks = self.host.tasks.clone();
        let kubelet = Kubelet {
            host: self.host,
            roster: self.roster,
            known: BTreeMap::new(),
            containers: None,
        };
        let stop = tasks.stop_token();
        tasks.spawn_once("kubelet", async move {
            tokio::select! {
                () = kubelet.run(from_engine) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Follows the engine until the connection ends.
async fn follow_engine(
    host: &Host,
    up: &watch::Sender<Result<(), String>>,
    sender: &mpsc::Sender<FromEngine>,
) -> anyhow::Result<()> {
    let result = async {
        let info = host.engine.info().await?;
        *host.engine_info.write() = info;
        carried::provide_pause(host.engine.as_ref()).await?;
        let name = &host.config.name;
        let mut events = host.engine.events(labels::NODE, name).await?;
        // After the stream stands: nothing can happen in between unseen.
        sender.send(FromEngine::Listed(host.engine.list(labels::NODE, name).await?)).await?;
        let _ = up.send_if_modified(|state| std::mem::replace(state, Ok(())).is_err());
        let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + RELIST, RELIST);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => sender.send(FromEngine::Event(event?)).await?,
                    None => anyhow::bail!("the stream of events ended"),
                },
                _ = relist.tick() => {
                    let all = host.engine.list(labels::NODE, name).await?;
                    sender.send(FromEngine::Listed(all)).await?;
                }
            }
        }
    };
    let end: anyhow::Result<()> = result.await;
    if let Err(error) = &end {
        let _ = up.send_replace(Err(format!("container runtime is down: {error:#}")));
    }
    end
}

/// The loop's own state.
struct Kubelet {
    host: SharedHost,
    roster: Roster,
    /// What each worker was last told: uid to revision.
    known: BTreeMap<String, String>,
    /// Containers by pod uid as first listed, until their workers exist.
    containers: Option<BTreeMap<String, Vec<Container>>>,
}

impl Kubelet {
    async fn run(mut self, mut from_engine: mpsc::Receiver<FromEngine>) {
        self.host.pods.synced().await;
        let mut changes = self.host.pods.changes();
        loop {
            tokio::select! {
                told = from_engine.recv() => match told {
                    Some(FromEngine::Listed(all)) => self.listed(all),
                    Some(FromEngine::Event(event)) => self.dispatch(event),
                    None => return,
                },
                changed = changes.changed() => if changed.is_err() { return },
            }
            self.compare();
        }
    }

    fn dispatch(&mut self, event: EngineEvent) {
        let Some(uid) = event.labels.get(labels::POD_UID) else { return };
        if let Some(mailbox) = self.roster.lock().get(uid) {
            mailbox.send(Event::Engine(event));
        }
    }

    fn listed(&mut self, all: Vec<Container>) {
        let mut by_pod = BTreeMap::<String, Vec<Container>>::new();
        for container in all {
            let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
            by_pod.entry(uid).or_default().push(container);
        }
        for (uid, mailbox) in self.roster.lock().iter() {
            mailbox.send(Event::Observed(by_pod.get(uid).cloned().unwrap_or_default()));
        }
        self.remove_orphans(&by_pod);
        self.containers = Some(by_pod);
    }

    /// Tells workers what the API has, starts missing ones, lets ended ones go.
    fn compare(&mut self) {
        let Some(containers) = &mut self.containers else { return };
        let pods = self.host.pods.list("");
        let mut roster = self.roster.lock();
        let present: BTreeSet<&str> = pods.iter().map(|pod| pod.uid()).collect();
        for (uid, mailbox) in roster.iter() {
            if !present.contains(uid.as_str()) && self.known.remove(uid).is_some() {
                mailbox.send(Event::Gone);
            }
        }
        roster.retain(|uid, mailbox| !mailbox.is_closed() || present.contains(uid.as_str()));
        for pod in &pods {
            let uid = pod.uid().to_owned();
            let revision = pod.metadata.resource_version.clone().unwrap_or_default();
            let told = self.known.insert(uid.clone(), revision.clone());
            match roster.get(&uid) {
                Some(mailbox) if mailbox.has_left() => {}
                Some(mailbox) if !mailbox.is_closed() => {
                    if told.as_ref() != Some(&revision) {
                        mailbox.send(Event::Pod(pod.clone()));
                    }
                }
                _ => {
                    let own = containers.remove(&uid).unwrap_or_default();
                    let (mailbox, worker) = Worker::new(self.host.clone(), pod.clone(), own);
                    roster.insert(uid, mailbox);
                    let name = format!("pod worker {}", pod.name());
                    self.host.tasks.spawn_once(name, worker.run());
                }
            }
        }
    }

    /// What belongs to pods that are gone: containers, network, folders.
    fn remove_orphans(&self, by_pod: &BTreeMap<String, Vec<Container>>) {
        let mut alive: BTreeSet<String> =
            self.host.pods.list("").iter().map(|pod| pod.uid().to_owned()).collect();
        alive.extend(self.roster.lock().keys().cloned());
        let orphans: Vec<Container> = by_pod
            .iter()
            .filter(|(uid, _)| !alive.contains(*uid))
            .flat_map(|(_, containers)| containers.clone())
            .collect();
        let host = self.host.clone();
        self.host.tasks.spawn_once("orphans", async move {
            sweep(&host, orphans, &alive).await;
        });
    }
}

async fn sweep(host: &Host, orphans: Vec<Container>, alive: &BTreeSet<String>) {
    let stops = orphans.iter().map(|container| async move {
        let grace = container.labels.get(labels::GRACE).and_then(|text| text.parse().ok());
        let grace = Duration::from_secs(grace.unwrap_or(30));
        tracing::info!(container = %container.id, "its pod is gone: it is stopped and removed");
        let stopped = host.engine.stop(&container.id, grace).await;
        if let Err(error) = stopped.and(host.engine.remove(&container.id).await) {
            tracing::warn!(container = %container.id, "cannot be removed: {error}");
        }
    });
    futures::future::join_all(stops).await;
    for uid in host.network.list().await {
        if !alive.contains(&uid)
            && let Err(error) = host.network.detach(&uid).await
        {
            tracing::warn!(pod = %uid, "its network cannot be given back: {error:#}");
        }
    }
    let (pods, alive) = (host.config.data_dir.join("pods"), alive.clone());
    let clean = move || -> std::io::Result<()> {
        for entry in std::fs::read_dir(pods)? {
            let entry = entry?;
            if !alive.contains(entry.file_name().to_string_lossy().as_ref()) {
                volumes::clean(&entry.path())?;
            }
        }
        Ok(())
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(clean).await {
        tracing::warn!("folders of pods that are gone cannot be removed: {error}");
    }
}
