//! An engine in memory: the twin with which kubelet, controllers and scenarios are tested.
//!
//! Why not a mock of calls: tests say what processes do (end with a code, print, refuse to start),
//! and see what is then on the "host", so that a different order of requests breaks no test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::engine::{
    Container, ContainerSpec, Credentials, Engine, EngineError, EngineEvent, EngineInfo, EventKind,
    ExecSpec, Image, LogQuery, Output, OutputStream, Resources, Result, Session, State, Usage,
};
use crate::client::node::{PodAddresses, PodNetwork, PodRef};
use crate::stdx::clock::SharedClock;

/// Events a reader may be behind; more are lost to it, as with a cut connection.
const EVENTS_MAX: usize = 4096;

/// A pod network in memory: it counts addresses up and remembers who has one.
#[derive(Default)]
pub struct FakeNetwork {
    attached: Mutex<BTreeMap<String, IpAddr>>,
}

impl FakeNetwork {
    /// Who has an address.
    pub fn attached(&self) -> BTreeMap<String, IpAddr> {
        self.attached.lock().clone()
    }
}

#[async_trait]
impl PodNetwork for FakeNetwork {
    async fn attach(&self, pod: &PodRef, _netns: &Path) -> anyhow::Result<PodAddresses> {
        let mut attached = self.attached.lock();
        let next = Ipv4Addr::new(10, 42, 0, attached.len() as u8 + 2);
        let address = *attached.entry(pod.uid.clone()).or_insert(IpAddr::V4(next));
        Ok(PodAddresses { ips: vec![address] })
    }

    async fn detach(&self, uid: &str) -> anyhow::Result<()> {
        self.attached.lock().remove(uid);
        Ok(())
    }

    async fn list(&self) -> Vec<String> {
        self.attached.lock().keys().cloned().collect()
    }
}

/// Answers a command: what it prints and its exit code.
type ExecHandler = Box<dyn Fn(&ContainerSpec, &[String]) -> (String, i32) + Send + Sync>;

/// The engine in memory.
pub struct FakeEngine {
    clock: SharedClock,
    state: Mutex<Host>,
    events: broadcast::Sender<EngineEvent>,
}

#[derive(Default)]
struct Host {
    made: u64,
    containers: BTreeMap<String, (ContainerSpec, Container)>,
    images: BTreeMap<String, Image>,
    logs: BTreeMap<String, String>,
    exec: Option<ExecHandler>,
    exits: BTreeMap<String, i32>,
    unreachable: bool,
    start_errors: BTreeMap<String, String>,
    pullable: BTreeSet<String>,
    pulls: Vec<(String, Option<Credentials>)>,
}

impl FakeEngine {
    /// A host with these images and no container.
    pub fn new(clock: SharedClock, images: &[&str]) -> Self {
        let mut host = Host::default();
        for name in images {
            host.add_image(name);
        }
        Self { clock, state: Mutex::new(host), events: broadcast::channel(EVENTS_MAX).0 }
    }

    /// Lets `pull` of this image succeed.
    pub fn allow_pull(&self, name: &str) {
        self.state.lock().pullable.insert(name.to_owned());
    }

    /// What was pulled, with which credentials.
    pub fn pulls(&self) -> Vec<(String, Option<Credentials>)> {
        self.state.lock().pulls.clone()
    }

    /// From now on the engine does not answer, or answers again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.state.lock().unreachable = unreachable;
    }

    /// Commands are answered by `handler`.
    pub fn on_exec<F>(&self, handler: F)
    where
        F: Fn(&ContainerSpec, &[String]) -> (String, i32) + Send + Sync + 'static,
    {
        self.state.lock().exec = Some(Box::new(handler));
    }

    /// Containers of this image fail to start with this text.
    pub fn refuse_start(&self, image: &str, error: &str) {
        self.state.lock().start_errors.insert(image.to_owned(), error.to_owned());
    }

    /// Adds to what a container printed.
    pub fn print(&self, id: &str, text: &str) {
        self.state.lock().logs.entry(id.to_owned()).or_default().push_str(text);
    }

    /// Specs and states of all containers, by name.
    pub fn containers(&self) -> BTreeMap<String, (ContainerSpec, Container)> {
        let host = self.state.lock();
        host.containers.values().map(|both| (both.0.name.clone(), both.clone())).collect()
    }

    /// The id of the newest running container whose name begins so.
    pub fn running(&self, prefix: &str) -> Option<String> {
        let host = self.state.lock();
        let running = |both: &&(ContainerSpec, Container)| {
            both.0.name.starts_with(prefix) && matches!(both.1.state, State::Running { .. })
        };
        host.containers.values().filter(running).map(|both| both.1.id.clone()).next_back()
    }

    /// The process of a running container ends by itself.
    pub fn exit(&self, id: &str, code: i32) {
        self.end(id, code);
    }

    fn end(&self, id: &str, code: i32) {
        let event = {
            let mut host = self.state.lock();
            let Some((_, container)) = host.containers.get_mut(id) else { return };
            let State::Running { started_at, .. } = container.state else { return };
            container.state = State::Exited {
                code,
                started_at: Some(started_at),
                finished_at: self.clock.now(),
                oom: false,
                error: String::new(),
            };
            event_of(container, EventKind::Died)
        };
        self.send(event);
    }

    fn send(&self, event: EngineEvent) {
        // Nobody listening is fine.
        self.events.send(event).ok();
    }

    fn reach(&self) -> Result<parking_lot::MutexGuard<'_, Host>> {
        let host = self.state.lock();
        if host.unreachable {
            return Err(EngineError::Unreachable("the engine is down".to_owned()));
        }
        Ok(host)
    }
}

impl Host {
    fn add_image(&mut self, name: &str) {
        let id = format!("sha256:{name}");
        let tags = vec![name.to_owned()];
        let image = Image { id, tags, size: 1000, has_command: true, ..Image::default() };
        self.images.insert(name.to_owned(), image);
    }
}

fn event_of(container: &Container, kind: EventKind) -> EngineEvent {
    EngineEvent { id: container.id.clone(), labels: container.labels.clone(), kind }
}

fn missing(id: &str) -> EngineError {
    EngineError::NotFound(format!("No such container: {id}"))
}

fn matches(labels: &BTreeMap<String, String>, label: &str, value: &str) -> bool {
    labels.get(label).is_some_and(|found| value.is_empty() || found == value)
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo> {
        drop(self.reach()?);
        Ok(EngineInfo {
            version: "0.0.0".to_owned(),
            os_image: "Fake OS".to_owned(),
            root: "/".to_owned(),
            cgroup_version: "2".to_owned(),
            seccomp: true,
            apparmor: false,
            memory_limits: true,
        })
    }

    async fn list(&self, label: &str, value: &str) -> Result<Vec<Container>> {
        let host = self.reach()?;
        let ours = host.containers.values().map(|both| &both.1);
        Ok(ours.filter(|container| matches(&container.labels, label, value)).cloned().collect())
    }

    async fn inspect(&self, id: &str) -> Result<Container> {
        let host = self.reach()?;
        host.containers.get(id).map(|both| both.1.clone()).ok_or_else(|| missing(id))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let mut host = self.reach()?;
        if host.containers.values().any(|(known, _)| known.name == spec.name) {
            let text = format!("The container name {:?} is already in use", spec.name);
            return Err(EngineError::Conflict(text));
        }
        let found = host
            .images
            .values()
            .find(|image| image.id == spec.image || image.tags.contains(&spec.image));
        let Some(image) = found.cloned() else {
            return Err(EngineError::NotFound(format!("No such image: {}", spec.image)));
        };
        host.made += 1;
        let id = format!("{:064x}", host.made);
        let container = Container {
            id: id.clone(),
            labels: spec.labels.clone(),
            image_id: image.id,
            created_at: self.clock.now(),
            state: State::Created,
        };
        host.containers.insert(id.clone(), (spec.clone(), container));
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let event = {
            let mut host = self.reach()?;
            let now = self.clock.now();
            let errors = host.start_errors.clone();
            let (spec, container) = host.containers.get_mut(id).ok_or_else(|| missing(id))?;
            if let Some(error) = errors.get(&spec.image) {
                container.state = State::Exited {
                    code: 127,
                    started_at: None,
                    finished_at: now,
                    oom: false,
                    error: error.clone(),
                };
                return Err(EngineError::Failed(error.clone()));
            }
            container.state = State::Running { pid: 1, started_at: now };
            event_of(container, EventKind::Started)
        };
        self.send(event);
        Ok(())
    }

    async fn stop(&self, id: &str, _grace: Duration) -> Result<()> {
        drop(self.reach()?);
        self.end(id, 0);
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        drop(self.reach()?);
        self.end(id, 137);
        let Some((_, container)) = self.reach()?.containers.remove(id) else { return Ok(()) };
        self.send(event_of(&container, EventKind::Removed));
        Ok(())
    }

    async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        let mut host = self.reach()?;
        let (spec, _) = host.containers.get_mut(id).ok_or_else(|| missing(id))?;
        spec.resources = resources.clone();
        Ok(())
    }

    async fn events(
        &self,
        label: &str,
        value: &str,
    ) -> Result<BoxStream<'static, Result<EngineEvent>>> {
        drop(self.reach()?);
        let (label, value) = (label.to_owned(), value.to_owned());
        let ours = move |event: std::result::Result<EngineEvent, _>| {
            let event = event.map_err(|error| EngineError::Unreachable(format!("{error:?}")));
            let wanted = event
                .as_ref()
                .is_ok_and(|event: &EngineEvent| !matches(&event.labels, &label, &value));
            std::future::ready((!wanted).then_some(event))
        };
        Ok(BroadcastStream::new(self.events.subscribe()).filter_map(ours).boxed())
    }

    async fn logs(&self, id: &str, query: &LogQuery) -> Result<OutputStream> {
        let host = self.reach()?;
        host.containers.get(id).ok_or_else(|| missing(id))?;
        let text = host.logs.get(id).cloned().unwrap_or_default();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let skip = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        let chunks: Vec<_> = lines[skip..]
            .iter()
            .map(|line| Ok(Output::Stdout(Bytes::from((*line).to_owned()))))
            .collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Session> {
        let mut host = self.reach()?;
        let (container, _) = host.containers.get(id).ok_or_else(|| missing(id))?;
        let (text, code) =
            host.exec.as_ref().map_or((String::new(), 0), |run| run(container, &spec.command));
        host.made += 1;
        let exec = format!("exec-{}", host.made);
        host.exits.insert(exec.clone(), code);
        let output = futures::stream::iter([Ok(Output::Stdout(Bytes::from(text)))]).boxed();
        Ok(Session { id: exec, output, input: Box::pin(tokio::io::sink()) })
    }

    async fn exec_exit(&self, exec: &str) -> Result<Option<i32>> {
        Ok(self.reach()?.exits.get(exec).copied())
    }

    async fn exec_resize(&self, _exec: &str, _width: u16, _height: u16) -> Result<()> {
        self.reach().map(drop)
    }

    async fn attach(&self, id: &str, _stdin: bool) -> Result<Session> {
        let query = LogQuery { stdout: true, stderr: true, ..LogQuery::default() };
        let output = self.logs(id, &query).await?;
        Ok(Session { id: id.to_owned(), output, input: Box::pin(tokio::io::sink()) })
    }

    async fn attach_resize(&self, _id: &str, _width: u16, _height: u16) -> Result<()> {
        self.reach().map(drop)
    }

    async fn usage(&self, id: &str) -> Result<Usage> {
        self.reach()?.containers.get(id).ok_or_else(|| missing(id))?;
        Ok(Usage { cpu_nanos: 1_000_000, memory: 4096, working_set: 4096, ..Usage::default() })
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        let host = self.reach()?;
        let found = host
            .images
            .values()
            .find(|image| image.id == name || image.tags.iter().any(|tag| tag == name));
        Ok(found.cloned())
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.reach()?.images.values().cloned().collect())
    }

    async fn pull(&self, name: &str, credentials: Option<&Credentials>) -> Result<()> {
        let mut host = self.reach()?;
        host.pulls.push((name.to_owned(), credentials.cloned()));
        if !host.pullable.contains(name) {
            return Err(EngineError::NotFound(format!("manifest for {name} not found")));
        }
        host.add_image(name);
        Ok(())
    }

    async fn load(&self, archive: Bytes) -> Result<()> {
        let mut names = Vec::new();
        let mut tar = tar::Archive::new(archive.as_ref());
        let unreadable = |error: std::io::Error| EngineError::Failed(error.to_string());
        for entry in tar.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            if entry.path().map_err(unreadable)?.as_os_str() != "manifest.json" {
                continue;
            }
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(unreadable)?;
            let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let tags = manifest[0]["RepoTags"].as_array().cloned().unwrap_or_default();
            names.extend(tags.iter().filter_map(|tag| tag.as_str()).map(str::to_owned));
        }
        let mut host = self.reach()?;
        names.iter().for_each(|name| host.add_image(name));
        Ok(())
    }

    async fn remove_image(&self, name: &str) -> Result<()> {
        self.reach()?.images.remove(name);
        Ok(())
    }
}
