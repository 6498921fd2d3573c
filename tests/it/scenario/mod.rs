//! Runs the conversations of `tests/scenarios/*.txt` against real controllers, an API server in
//! memory and a node that only pretends, in virtual time.
//!
//! A file is a list of blocks: a command, its input, `----`, the expected answer, an empty line.
//! With `REWRITE=1` the answers are written instead of compared; read the difference. The commands
//! are the arms of `World::command`. Generated parts of names are shown as `*`, the hash of a
//! ReplicaSet as `<n>`, n counting templates in order of appearance.

mod node;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clusterd::client::fake::FakeServer;
use clusterd::client::{DeleteOptions, PatchKind, Propagation, SharedClient, Target, WriteOptions};
use clusterd::controllers::{self, ApiServers, ControllerContext, ServedKind};
use clusterd::object::{Gvr, Value, meta};
use clusterd::reconcile::Informers;
use clusterd::stdx::clock::{Clock, SharedClock};
use clusterd::stdx::tasks::Tasks;
use jiff::Timestamp;
use serde::Deserialize;

/// group, version, plural, kind, namespaced
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "services", "Service", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "events", "Event", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("batch", "v1", "jobs", "Job", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
];

/// Time that moves with tokio's, so that timers and written times agree.
struct TestClock {
    base: Timestamp,
    start: tokio::time::Instant,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.base + self.start.elapsed()
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A cluster in a test.
pub struct World {
    server: FakeServer,
    client: SharedClient,
    tasks: Tasks,
    names: show::Names,
}

impl World {
    async fn start() -> Self {
        let base = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock: SharedClock = Arc::new(TestClock { base, start: tokio::time::Instant::now() });
        let server = FakeServer::new(clock.clone());
        let (client, tasks) = (server.client(), Tasks::new());
        let informers = Informers::new(client.clone(), &tasks);
        let users = server.clone();
        let context = ControllerContext {
            informers: informers.clone(),
            client_for: Arc::new(move |user| users.client_as(user)),
            clock: clock.clone(),
            kinds: Arc::new(|| KINDS.iter().map(served).collect()),
            root_ca: "CERTIFICATE".to_owned(),
            servers: ApiServers {
                service_ip: "10.43.0.1".parse().unwrap(),
                addresses: Arc::new(|| vec!["192.0.2.1".parse().unwrap()]),
                port: 6443,
            },
        };
        controllers::run(&context, &tasks);
        node::start(&server, &informers, &clock, &tasks);
        let world = Self { server, client, tasks, names: show::Names::default() };
        world.advance(Duration::from_millis(100)).await;
        world
    }

    /// Lets all tasks run until only timers are left, and time pass.
    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    async fn command(&mut self, line: &str, input: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["apply"] => self.apply(input).await,
            ["patch", resource, name] => self.patch(resource, name, input).await,
            ["delete", resource, name, how @ ..] => {
                self.delete(resource, name, how.first().copied()).await
            }
            ["undo", name, revision] => self.undo(name, revision).await,
            ["advance", time] => {
                self.advance(duration(time)).await;
                return String::new();
            }
            ["get", resource] => return self.get(resource),
            ["events"] => return self.names.events(&self.server.all(&gvr("events"))),
            _ => panic!("no such command: {line}"),
        };
        // What the command set off, but nothing that takes time.
        self.advance(Duration::from_millis(100)).await;
        answer
    }

    fn get(&mut self, resource: &str) -> String {
        // Sets are told apart by the order in which they appeared.
        self.names.learn(&self.server.all(&gvr("replicasets")));
        self.names.table(resource, &self.server.all(&gvr(resource)))
    }

    async fn apply(&self, input: &str) -> String {
        let mut told = String::new();
        for document in serde_yaml::Deserializer::from_str(input) {
            let object = Value::deserialize(document).unwrap();
            let resource = resource_of(meta::gvk(&object).unwrap().kind.as_str());
            let (namespace, name) = (namespace_of(&object, resource), meta::name(&object));
            let target = Target::object(&gvr(resource), namespace, name);
            let options = WriteOptions::default();
            let done = match self.client.get(&target).await {
                Ok(_) => {
                    let kind = PatchKind::Merge;
                    let patched = self.client.patch(&target, kind, object.clone(), &options).await;
                    patched.map(|_| "configured")
                }
                Err(_) => {
                    let all = Target::all(&gvr(resource), namespace);
                    let made = self.client.create(&all, object.clone(), &options).await;
                    made.map(|_| "created")
                }
            };
            let done = done.map_or_else(|status| status.message, str::to_owned);
            told += &format!("{resource}/{name} {done}\n");
        }
        told
    }

    async fn patch(&self, resource: &str, name: &str, input: &str) -> String {
        let body: Value = serde_yaml::from_str(input).unwrap();
        let (target, options) = (target(resource, name), WriteOptions::default());
        let done = self.client.patch(&target, PatchKind::Merge, body, &options).await;
        done.map_or_else(|status| status.message + "\n", |_| String::new())
    }

    async fn delete(&self, resource: &str, name: &str, how: Option<&str>) -> String {
        let propagation = match how.unwrap_or("background") {
            "background" => Propagation::Background,
            "foreground" => Propagation::Foreground,
            "orphan" => Propagation::Orphan,
            other => panic!("no such propagation: {other}"),
        };
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let done = self.client.delete(&target(resource, name), &options).await;
        done.map_or_else(|status| status.message + "\n", |_| String::new())
    }

    /// As `kubectl rollout undo --to-revision` does it.
    async fn undo(&self, name: &str, revision: &str) -> String {
        let annotation = "deployment.kubernetes.io/revision";
        let sets = self.server.all(&gvr("replicasets"));
        let found = sets
            .iter()
            .find(|set| meta::text(set, &["metadata", "annotations", annotation]) == revision);
        let Some(set) = found else { return format!("no revision {revision}\n") };
        let mut template = set["spec"]["template"].clone();
        meta::remove(&mut template, &["metadata", "labels", "pod-template-hash"]);
        let body = serde_json::json!({"spec": {"template": template}});
        self.patch("deployments", name, &body.to_string()).await
    }
}

fn served(kind: &(&str, &str, &str, &str, bool)) -> ServedKind {
    let (group, version, resource, name, namespaced) = *kind;
    let gvr = Gvr::new(group, version, resource);
    ServedKind { gvr, kind: name.to_owned(), namespaced, deletable: true }
}

fn gvr(resource: &str) -> Gvr {
    let found = KINDS.iter().find(|kind| kind.2 == resource);
    served(found.unwrap_or_else(|| panic!("no such resource: {resource}"))).gvr
}

fn resource_of(kind: &str) -> &'static str {
    KINDS.iter().find(|it| it.3 == kind).unwrap_or_else(|| panic!("no such kind: {kind}")).2
}

fn is_namespaced(resource: &str) -> bool {
    KINDS.iter().any(|kind| kind.2 == resource && kind.4)
}

fn namespace_of<'a>(object: &'a Value, resource: &str) -> &'a str {
    match (is_namespaced(resource), meta::namespace(object)) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    }
}

/// A name, or "namespace/name".
fn target(resource: &str, name: &str) -> Target {
    let default = if is_namespaced(resource) { "default" } else { "" };
    let (namespace, name) = name.split_once('/').unwrap_or((default, name));
    Target::object(&gvr(resource), namespace, name)
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => panic!("no such time: {text}"),
    }
}

/// One command of a file with its input and its expected answer.
struct Block {
    /// Comments and empty lines before it.
    before: String,
    command: String,
    input: String,
    expected: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while lines.peek().is_some() {
        let mut block = Block {
            before: String::new(),
            command: String::new(),
            input: String::new(),
            expected: String::new(),
        };
        while let Some(line) = lines.next_if(|it| it.is_empty() || it.starts_with('#')) {
            block.before += &format!("{line}\n");
        }
        let Some(command) = lines.next() else { break };
        block.command = command.to_owned();
        for line in lines.by_ref().take_while(|line| *line != "----") {
            block.input += &format!("{line}\n");
        }
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            block.expected += &format!("{line}\n");
        }
        blocks.push(block);
    }
    blocks
}

/// Plays one file; the answer is what it should be.
async fn play(text: &str) -> String {
    let mut world = World::start().await;
    let mut actual = String::new();
    for block in blocks(text) {
        let answer = world.command(&block.command, &block.input).await;
        let Block { before, command, input, .. } = block;
        actual += &format!("{before}{command}\n{input}----\n{answer}\n");
    }
    world.tasks.shutdown().await;
    actual
}

fn compare(path: &Path) -> Result<(), String> {
    let expected = std::fs::read_to_string(path).unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    let actual = runtime.block_on(play(&expected));
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(path, actual).unwrap();
        return Ok(());
    }
    let mut lines = expected.lines().zip(actual.lines()).enumerate();
    let same = expected.trim_end() == actual.trim_end();
    let differing = lines.find(|(_, (expected, actual))| expected != actual);
    match differing {
        _ if same => Ok(()),
        Some((at, (expected, actual))) => Err(format!(
            "{}:{}\n  expected: {expected}\n  actual:   {actual}",
            path.display(),
            at + 1
        )),
        None => Err(format!("{}: the lengths differ", path.display())),
    }
}

#[test]
fn scenarios_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let failures: Vec<String> = paths.iter().filter_map(|path| compare(path).err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
