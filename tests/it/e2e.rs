//! The executable as a whole: real processes, a real Docker Engine, a network namespace as host.
//!
//! Why: the layers' own tests cannot see what falls between them. Each test has a namespace (no
//! default route, so nothing can leave), a data directory and a node of its own, and takes away
//! what it made also when it fails. Where no Docker answers it says so and passes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clusterd::client::http::Http;
use clusterd::client::{Client, List, ListOptions, Target, WatchEvent, WriteOptions, kubeconfig};
use clusterd::object::{Gvr, Value, meta};
use clusterd::stdx::tasks::Tasks;
use futures::StreamExt;
use parking_lot::Mutex;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::runtime::Runtime;

use super::net::namespace::{Namespace, command};

const CLUSTERD: &str = env!("CARGO_BIN_EXE_clusterd");
/// How long anything may take before it counts as never; generous, for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// The same for one command, which `timeout` ends.
const COMMAND_SECONDS: &str = "120";
/// Between two looks at what nobody announces.
const PAUSE: Duration = Duration::from_millis(100);
const NODE_IP: &str = "10.95.0.1";

/// A host with clusterd on it.
struct House {
    name: String,
    server: Option<Child>,
    space: Namespace,
    dir: tempfile::TempDir,
}

impl House {
    /// `None`, and a word why, where a namespace cannot be made.
    fn new(test: &str) -> Option<Self> {
        let space = Namespace::new()?;
        space.run(|| {
            command("ip link set lo up");
            command("ip link add uplink type veth peer name beyond");
            command(&format!("ip addr add {NODE_IP}/24 dev uplink"));
            command("ip link set uplink up");
            command("ip link set beyond up");
        });
        let name = format!("e2e-{test}-{}", std::process::id());
        Some(Self { name, server: None, space, dir: tempfile::tempdir().unwrap() })
    }

    /// The same where Docker answers.
    fn with_docker(test: &str) -> Option<Self> {
        let answer = Command::new("docker").arg("version").output();
        if !answer.is_ok_and(|output| output.status.success()) {
            println!("skipped: no Docker Engine answers");
            return None;
        }
        Self::new(test)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig.yaml")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Runs the executable inside, apart from the configuration of the machine.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([COMMAND_SECONDS, CLUSTERD]).args(arguments);
        command.env("KUBECONFIG", self.kubeconfig()).env_remove("CLUSTERD_CONFIG");
        command
    }

    fn output(&self, mut command: Command) -> Output {
        self.space.run(move || command.stdin(Stdio::null()).output().unwrap())
    }

    fn server_arguments(&self) -> Vec<String> {
        let words = [
            ("data-dir", self.data().display().to_string()),
            ("write-kubeconfig", self.kubeconfig().display().to_string()),
            ("node-name", self.name.clone()),
            ("node-ip", NODE_IP.to_owned()),
        ];
        words.map(|(flag, value)| format!("--{flag}={value}")).into()
    }

    /// Starts the server and waits until it is ready.
    fn start(&mut self, more: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(CLUSTERD);
        command.arg("server").args(self.server_arguments()).args(more);
        command.env_remove("CLUSTERD_CONFIG").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(self.space.run(move || command.spawn().unwrap()));
        let ready = |house: &mut Self| {
            let ended = house.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {ended:?}");
            let asked = house.command(&["ctl", "get", "--raw", "/readyz"]);
            house.output(asked).status.success().then_some(())
        };
        eventually("the server is ready", || ready(self));
    }

    /// Runs a server that is expected to end by itself: its code and what it says.
    fn start_in_vain(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(&["server"]);
        command.args(self.server_arguments()).args(more);
        let output = self.output(command);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Ends the server by a signal and waits for its end.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        kill_process(Pid::from_child(&server), signal).unwrap();
        server.wait().unwrap()
    }

    /// `clusterd ctl …`, which must succeed: what it prints.
    fn ctl(&self, line: &str) -> String {
        self.try_ctl(line).unwrap_or_else(|error| panic!("ctl {line}: {error}"))
    }

    fn try_ctl(&self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = ["ctl"].into_iter().chain(line.split_whitespace()).collect();
        let output = self.output(self.command(&words));
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn ctl_json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ctl(&format!("{line} -o json"))).unwrap()
    }

    /// Applies the sample and waits until it is rolled out.
    fn deploy_sample(&self) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sample.yaml");
        self.ctl(&format!("apply -f {file}"));
        self.ctl("rollout status deployment/sample --timeout=100s");
    }

    /// The names of the sample's pods, each of which runs and has never been restarted.
    fn sample_pods(&self) -> BTreeSet<String> {
        let list = self.ctl_json("get pods -l app=sample");
        let pods = list["items"].as_array().unwrap();
        let steady = |pod: &Value| {
            assert_eq!(pod["status"]["phase"], "Running", "{pod}");
            assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod}");
            meta::name(pod).to_owned()
        };
        pods.iter().map(steady).collect()
    }

    /// The ids of this node's running containers.
    fn containers(&self) -> BTreeSet<String> {
        let node = format!("label=io.clusterd.node={}", self.name);
        let ids = command(&format!("docker ps --no-trunc --quiet --filter {node}"));
        ids.lines().map(str::to_owned).collect()
    }

    /// A runtime whose threads are inside, and a client of the administrator.
    fn client(&self) -> (Runtime, Arc<Http>) {
        let runtime = self.space.run(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap()
        });
        let access = kubeconfig::load(&self.kubeconfig(), None).unwrap();
        (runtime, Arc::new(Http::new(&access, "e2e", Tasks::new()).unwrap()))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        let node = format!("label=io.clusterd.node={}", self.name);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &node]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let ids = ids.unwrap_or_default();
        if !ids.is_empty() {
            let mut remove = Command::new("docker");
            let _ = remove.args(["rm", "-f"]).args(ids.split_whitespace()).output();
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().rev() {
            let point = line.split(' ').nth(1).unwrap_or_default();
            if std::path::Path::new(point).starts_with(self.dir.path()) {
                let _ = unmount(point, UnmountFlags::DETACH);
            }
        }
    }
}

/// Looks again and again until there is an answer.
#[allow(clippy::disallowed_methods)] // processes and the kernel announce nothing to wait on
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A plain GET; the whole answer.
fn http_get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: sample\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_sample_runs_and_answers_by_address_and_by_name() {
    let Some(mut house) = House::with_docker("sample") else { return };
    house.start(&[]);
    house.deploy_sample();
    let pods = house.sample_pods();
    assert_eq!(pods.len(), 3);

    let service = house.ctl_json("get service sample");
    let address = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
    let from_host = eventually("the Service answers this host", || {
        let address = address.clone();
        house.space.run(move || http_get(&address)).ok()
    });
    assert!(from_host.starts_with("HTTP/1.1 200"), "{from_host}");
    assert!(pods.iter().any(|pod| from_host.contains(pod.as_str())), "{from_host}");

    let pod = pods.first().unwrap();
    let url = "http://sample.default.svc.cluster.local/";
    let from_pod = eventually("the Service answers a pod by its name", || {
        house.try_ctl(&format!("exec {pod} -- /sample get {url}")).ok()
    });
    assert!(pods.iter().any(|pod| from_pod.contains(pod.as_str())), "{from_pod}");

    assert_eq!(house.end(Signal::TERM).code(), Some(0));
    assert_eq!(house.containers().len(), 6, "pods go on without the server");
}

/// What the writer was promised: name and revision.
type Promised = Arc<Mutex<BTreeMap<String, u64>>>;

const LABEL: &str = "e2e.clusterd.io/written";
/// The last object that the writer makes.
const LAST: &str = "written-last";
/// Creates that must succeed between two kills.
const CREATES_BETWEEN_KILLS: usize = 25;

fn config_maps() -> Target {
    Target::all(&Gvr::new("", "v1", "configmaps"), "default")
}

fn written() -> ListOptions {
    ListOptions { label_selector: LABEL.to_owned(), ..ListOptions::default() }
}

fn name_and_revision(object: &Value) -> (String, u64) {
    (meta::name(object).to_owned(), meta::resource_version(object).parse().unwrap())
}

/// Creates `name`; an answer is a promise, anything else says nothing.
async fn write(client: &Http, name: &str, promised: &Promised) -> bool {
    let labels = json!({(LABEL): "yes"});
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "data": {"text": "x".repeat(1000)},
    });
    match client.create(&config_maps(), object, &WriteOptions::default()).await {
        Ok(made) => {
            let (name, revision) = name_and_revision(&made);
            promised.lock().insert(name, revision);
            true
        }
        Err(_) => {
            tokio::time::sleep(PAUSE).await;
            false
        }
    }
}

/// What is there. Asked by a thread of the runtime: the test's own is not in the namespace.
fn list(runtime: &Runtime, client: &Arc<Http>) -> List {
    let client = client.clone();
    let asked = runtime.spawn(async move { client.list(&config_maps(), &written()).await });
    runtime.block_on(asked).unwrap().unwrap()
}

/// Follows the objects from `revision` on to the last one, taking up each watch that breaks where
/// it broke.
async fn follow(client: Arc<Http>, mut revision: u64) -> Vec<(String, u64)> {
    let mut seen: Vec<(String, u64)> = Vec::new();
    loop {
        let options = ListOptions { resource_version: revision.to_string(), ..written() };
        let mut watch = match client.watch(&config_maps(), &options).await {
            Ok(watch) => watch,
            Err(status) => {
                assert_ne!(status.code, 410, "history is lost: {}", status.message);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while let Some(Ok(event)) = watch.next().await {
            let WatchEvent::Added(object) = event else { panic!("nobody does this: {event:?}") };
            let found = name_and_revision(&serde_json::from_slice(&object).unwrap());
            revision = found.1;
            seen.push(found);
            if seen.last().unwrap().0 == LAST {
                return seen;
            }
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_kills_and_so_do_the_pods() {
    let kills = std::env::var("E2E_KILLS").map_or(5, |text| text.parse().unwrap());
    let Some(mut house) = House::with_docker("kill") else { return };
    house.start(&[]);
    house.deploy_sample();
    let (pods, containers) = (house.sample_pods(), house.containers());
    assert_eq!((pods.len(), containers.len()), (3, 6));

    let (runtime, client) = house.client();
    let promised = Promised::default();
    let begin = list(&runtime, &client);
    let (seeing, writing) = (client.clone(), (client.clone(), promised.clone()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watcher = runtime.spawn(follow(seeing, begin.resource_version));
    let writer = runtime.spawn(async move {
        let mut number = 0;
        while !*stopped.borrow() {
            write(&writing.0, &format!("written-{number:06}"), &writing.1).await;
            number += 1;
        }
        while !write(&writing.0, LAST, &writing.1).await {}
    });
    for kill in 0..kills {
        let goal = promised.lock().len() + CREATES_BETWEEN_KILLS;
        eventually("writes go on", || (promised.lock().len() >= goal).then_some(()));
        house.end(Signal::KILL);
        house.start(&[]);
        println!("kill {kill}: {} promised", promised.lock().len());
    }
    stop.send(true).unwrap();
    let both = async { tokio::try_join!(writer, watcher) };
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await });
    let ((), seen) = ended.expect("writer and watch reach the last object").unwrap();

    let list = list(&runtime, &client);
    let there =
        list.items.iter().map(|item| name_and_revision(&serde_json::from_slice(item).unwrap()));
    let there: BTreeMap<String, u64> = there.collect();
    for (name, revision) in promised.lock().iter() {
        assert_eq!(there.get(name), Some(revision), "{name} was acknowledged");
    }
    assert!(seen.is_sorted_by(|one, next| one.1 < next.1), "in order: {seen:?}");
    assert_eq!(seen.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), seen.len());
    assert_eq!(seen.into_iter().collect::<BTreeMap<_, _>>(), there);

    // A fourth pod runs only after the node has looked at what it found.
    house.ctl("scale deployment/sample --replicas=4");
    house.ctl("rollout status deployment/sample --timeout=100s");
    assert!(house.sample_pods().is_superset(&pods));
    assert!(house.containers().is_superset(&containers), "the same containers");
}

#[test]
fn a_start_that_cannot_work_says_what_to_do() {
    let Some(mut house) = House::new("bad") else { return };
    let holder = house.space.run(|| TcpListener::bind("0.0.0.0:6443").unwrap());
    let (code, text) = house.start_in_vain(&["--disable-agent"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot listen on 0.0.0.0:6443: stop what uses the port"), "{text}");
    assert!(!house.data().exists(), "nothing was begun");
    drop(holder);

    let file = house.dir.path().join("config.yaml");
    let flag = format!("--config={}", file.display());
    for (content, words) in [
        (None, "cannot read the configuration file"),
        (Some("https-port: [1"), "no valid YAML"),
        (Some("https-prot: 1"), "unknown key \"https-prot\""),
        (Some("service-cidr: 10.42.0.0/16\ncluster-dns: 10.42.0.10"), "overlap"),
    ] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (code, text) = house.start_in_vain(&[&flag]);
        assert_eq!(code, Some(64), "{content:?}: {text}");
        assert!(text.contains(words), "{content:?}: {text}");
    }

    house.start(&["--disable-agent"]);
    let (code, text) = house.start_in_vain(&["--disable-agent", "--https-port=6444"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use by another process"), "{text}");
    assert!(text.contains("another --data-dir"), "{text}");
    assert_eq!(house.end(Signal::TERM).code(), Some(0));

    std::fs::write(house.data().join("cluster-id"), "another").unwrap();
    let (code, text) = house.start_in_vain(&["--disable-agent"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("belongs to cluster"), "{text}");
    assert!(text.contains("another --data-dir"), "{text}");
}
