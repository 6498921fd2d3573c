//! `clusterd server`, `ctl`, `check` and `uninstall` as a person runs them, in a network namespace
//! with a real Docker engine: the host is afterwards as it was before.
//!
//! Why by processes: only the executable's own end shows what outlives it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::net::namespace::{Namespace, command};

const BINARY: &str = env!("CARGO_BIN_EXE_clusterd");
const LABEL: &str = "io.clusterd.node";

/// A host with its own network and folder.
struct Host {
    node: String,
    dir: PathBuf,
}

/// Stops the server whatever the test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn server(&self) -> Running {
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new(BINARY)
            .args(["server", "--node-ip", "10.98.7.1", "--node-name", &self.node])
            .args([
                "--data-dir",
                &self.path("data"),
                "--write-kubeconfig",
                &self.path("kubeconfig"),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running(child)
    }

    /// `clusterd check` or `uninstall`.
    fn on_host(&self, role: &str, more: &[&str]) -> Output {
        Command::new(BINARY)
            .args([role, "--node-name", &self.node, "--data-dir", &self.path("data")])
            .args(["--write-kubeconfig", &self.path("kubeconfig")])
            .args(more)
            .output()
            .unwrap()
    }

    fn ctl(&self, line: &str) -> Output {
        Command::new(BINARY)
            .args(["ctl", "--kubeconfig", &self.path("kubeconfig")])
            .args(line.split_whitespace())
            .output()
            .unwrap()
    }

    fn must(&self, line: &str) -> String {
        let output = self.ctl(line);
        assert!(output.status.success(), "ctl {line}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn containers(&self) -> String {
        command(&format!("docker ps -aq --filter label={LABEL}={}", self.node))
    }

    /// Everything that a node may change on a host.
    fn state(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.dir.display().to_string();
        let mounts = mounts.lines().filter(|line| line.contains(&ours));
        vec![
            command("ip -brief link"),
            // The kernel's own IPv6 routes come when its probes for duplicates are over.
            command("ip -4 route show table all"),
            command("nft list ruleset"),
            command("iptables-save -t filter")
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect(),
            self.containers(),
            mounts.collect(),
            format!("{:?}", (self.dir.join("data").exists(), self.dir.join("kubeconfig").exists())),
        ]
    }
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Whether a tool that the test needs answers.
fn has(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

fn wait_until_ready(host: &Host) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !host.ctl("get --raw /readyz").status.success() {
        assert!(std::time::Instant::now() < deadline, "{}", log(&host.dir));
        // A process that is starting has nothing to wait on but its answer.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

#[test]
fn uninstall_leaves_the_host_as_it_was() {
    let needed = ["docker info", "nft list tables", "iptables-save -t filter", "ip link"];
    if let Some(missing) = needed.iter().find(|line| !has(line)) {
        println!("skipped: `{missing}` does not answer");
        return;
    }
    let Some(namespace) = Namespace::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host { node: format!("host-{}", std::process::id()), dir: dir.path().to_owned() };
    namespace.run(move || life(&host));
}

/// From an empty host to a running cluster and back.
fn life(host: &Host) {
    for line in [
        "ip link set lo up",
        "ip link add out type veth peer name far",
        "ip address add 10.98.7.1/24 dev out",
        "ip link set far up",
        "ip link set out up",
    ] {
        command(line);
    }
    // The first look makes the kernel's empty chains appear.
    host.state();
    let before = host.state();
    let server = host.server();
    wait_until_ready(host);
    host.must("wait node --all --for=condition=Ready --timeout=60s");
    host.must(&format!("apply -f {}/scripts/sample.yaml", env!("CARGO_MANIFEST_DIR")));
    let told_rollout = host.must("rollout status deployment/sample --timeout=120s");
    assert!(told_rollout.contains("successfully rolled out"), "{told_rollout}");
    let pod = host.must("get pods -l app=sample -o name");
    let pod = pod.lines().next().unwrap();
    let page = host.must(&format!("exec {pod} -- /sample get http://sample.default"));
    assert!(page.contains("sample-"), "{page}");
    assert_eq!(host.ctl(&format!("exec {pod} -- /sample get http://none/")).status.code(), Some(1));
    assert!(host.must(&format!("logs {pod}")).contains("listening"));

    let check = host.on_host("check", &[]);
    let said = told(&check);
    assert!(check.status.success() && said.contains("a server runs"), "{said}");
    let refused = host.on_host("uninstall", &["--yes"]);
    assert!(!refused.status.success() && told(&refused).contains("stop it first"));

    let mut server = server;
    let id = rustix::process::Pid::from_raw(server.0.id() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success(), "{}", log(&host.dir));
    assert!(!host.containers().is_empty(), "the end of the server must not end containers");

    let done = host.on_host("uninstall", &["--yes"]);
    assert!(done.status.success(), "{}", told(&done));
    assert_eq!(host.state(), before);
    let again = host.on_host("uninstall", &["--yes"]);
    assert!(again.status.success(), "{}", told(&again));
}
