//! `clusterd check`: what this host lacks and how to mend it, and what of ours is on it.
//! `clusterd uninstall`: removes all of that.
//!
//! Why both read one list: what is shown and what is removed must be the same things.

use std::io::{BufRead, IsTerminal, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::EXIT_FAILURE;
use super::cli::{HostOptions, UninstallOptions};
use crate::net;
use crate::runtime::docker::DockerEngine;
use crate::runtime::engine::Engine;
use crate::runtime::leftovers::{self, Made};

/// Free bytes below which a data directory is too small: the store's own reserve and some images'
/// worth of writable layers.
const DISK_FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// A clock before this (2026-01-01) was never set; certificates made by it would be useless.
const CLOCK_MIN_SECONDS: i64 = 1_767_225_600;
/// Controllers that limits of containers need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// One thing that was looked at: its name, and what was found or what is wrong.
struct Finding {
    what: &'static str,
    state: Result<String, String>,
}

fn finding(what: &'static str, state: Result<String, String>) -> Finding {
    Finding { what, state }
}

/// `clusterd check`.
pub async fn check(options: HostOptions) -> anyhow::Result<i32> {
    let running = is_running(&options.data_dir)?;
    let mut findings = vec![finding("root", root())];
    findings.push(finding("network", network(&options)));
    findings.push(finding("docker", docker(&options.docker_host).await));
    findings.push(finding("cgroups", cgroups(Path::new("/sys/fs/cgroup"))));
    findings.push(finding("overlay", overlay()));
    findings.push(finding("forwarding", forwarding()));
    findings.push(finding("API port", port(options.https_port, running, "--https-port")));
    findings.push(finding("node port", port(options.kubelet_port, running, "--kubelet-port")));
    findings.push(finding("clock", clock(jiff::Timestamp::now().as_second())));
    findings.push(finding("disk", disk(&options.data_dir)));
    let mut text = String::new();
    for Finding { what, state } in &findings {
        let (mark, said) = match state {
            Ok(said) => ("ok  ", said),
            Err(said) => ("FAIL", said),
        };
        text.push_str(&format!("{mark}  {what:<10}  {said}\n"));
    }
    let made = Inventory::find(&options).await;
    let state = if running { "; a server runs" } else { "" };
    match made.lines.is_empty() && made.unknown.is_empty() {
        true => text.push_str("\nNothing of clusterd is on this host.\n"),
        false => text.push_str(&format!("\nOf clusterd on this host{state}:\n{}", made.text())),
    }
    std::io::stdout().write_all(text.as_bytes())?;
    let failed = findings.iter().any(|finding| finding.state.is_err());
    Ok(if failed { EXIT_FAILURE } else { 0 })
}

fn root() -> Result<String, String> {
    match rustix::process::geteuid().is_root() {
        true => Ok("runs as root".to_owned()),
        false => Err("the node needs root: run it with sudo".to_owned()),
    }
}

fn network(options: &HostOptions) -> Result<String, String> {
    let problems = net::preflight(options.cluster_cidr, options.service_cidr);
    match problems.is_empty() {
        true => Ok("nftables and veth work, the address ranges are free".to_owned()),
        false => Err(problems.join("; ")),
    }
}

async fn docker(host: &str) -> Result<String, String> {
    let mend =
        "install Docker Engine and start it (scripts/up does), or name another --docker-host";
    let info = match DockerEngine::new(host) {
        Ok(engine) => engine.info().await,
        Err(error) => Err(error),
    };
    match info {
        Err(error) => Err(format!("no engine at {host} ({error}): {mend}")),
        Ok(info) if !info.memory_limits => {
            Err("Docker cannot limit memory: boot with cgroup_enable=memory".to_owned())
        }
        Ok(info) => Ok(format!(
            "Docker {} answers at {host}, cgroup v{}",
            info.version, info.cgroup_version
        )),
    }
}

fn cgroups(root: &Path) -> Result<String, String> {
    let Ok(have) = std::fs::read_to_string(root.join("cgroup.controllers")) else {
        let missing: Vec<&str> =
            CONTROLLERS.into_iter().filter(|one| !root.join(one).is_dir()).collect();
        return match missing.is_empty() {
            true => Ok("version 1".to_owned()),
            false => Err(format!("{} not mounted: mount cgroup2", missing.join(", "))),
        };
    };
    let have: Vec<&str> = have.split_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|one| !have.contains(one)).collect();
    match missing.is_empty() {
        true => Ok("version 2".to_owned()),
        false => Err(format!(
            "controllers missing: {}; enable them in the parent's cgroup.subtree_control",
            missing.join(", ")
        )),
    }
}

fn overlay() -> Result<String, String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.split_whitespace().any(|word| word == "overlay") {
        true => Ok("the kernel has overlayfs".to_owned()),
        false => Err("the kernel has no overlayfs: modprobe overlay".to_owned()),
    }
}

fn forwarding() -> Result<String, String> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == "1" => Ok("IPv4 is forwarded".to_owned()),
        Ok(_) => {
            let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
            match writable {
                true => Ok("IPv4 is not forwarded yet; the node switches it on".to_owned()),
                false => Err(format!("{path} is 0 and read-only: sysctl net.ipv4.ip_forward=1")),
            }
        }
        Err(error) => Err(format!("cannot read {path}: {error}")),
    }
}

fn port(port: u16, running: bool, flag: &str) -> Result<String, String> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(format!("{port} is free")),
        Err(_) if running => Ok(format!("{port} is used by the server that runs")),
        Err(error) => {
            Err(format!("{port}: {error}; stop what uses it (ss -lntp), or choose {flag}"))
        }
    }
}

fn clock(seconds: i64) -> Result<String, String> {
    match seconds >= CLOCK_MIN_SECONDS {
        true => Ok("is set".to_owned()),
        false => Err("is in the past: certificates would not be valid; set it (NTP)".to_owned()),
    }
}

fn disk(data: &Path) -> Result<String, String> {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .map_err(|error| format!("cannot look at {}: {error}", existing.display()))?;
    let free = stat.f_bavail * stat.f_frsize;
    let text = format!("{} MiB free for {}", free / (1024 * 1024), data.display());
    match free >= DISK_FREE_BYTES_MIN {
        true => Ok(text),
        false => Err(format!(
            "{text}: at least {} MiB are needed; make room or choose another --data-dir",
            DISK_FREE_BYTES_MIN / (1024 * 1024)
        )),
    }
}

/// Whether a server holds the lock of the store in `data`.
fn is_running(data: &Path) -> anyhow::Result<bool> {
    for part in ["log", "state"] {
        let path = data.join("store").join(part).join("LOCK");
        let lock = match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
            lock => lock?,
        };
        // The lock is the process's: closing the file gives it back.
        match rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// What of ours this host has.
#[derive(Default)]
struct Inventory {
    lines: Vec<String>,
    /// What could not be looked at.
    unknown: Vec<String>,
}

impl Inventory {
    async fn find(options: &HostOptions) -> Self {
        let mut found = Self::default();
        let made = match DockerEngine::new(&options.docker_host) {
            Ok(engine) => Made::find(&engine, &options.node_name).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => found.lines.extend(made.lines()),
            Err(error) => found.unknown.push(format!("containers and images: {error}")),
        }
        match leftovers::mounts(&options.data_dir) {
            Ok(mounts) => {
                let mounts = mounts.iter().map(|mount| format!("mount {}", mount.display()));
                found.lines.extend(mounts);
            }
            Err(error) => found.unknown.push(format!("mounts: {error}")),
        }
        match net::inventory() {
            Ok(lines) => found.lines.extend(lines),
            Err(error) => found.unknown.push(format!("network: {error:#}")),
        }
        if options.data_dir.exists() {
            found.lines.push(format!("directory {}", options.data_dir.display()));
        }
        if options.write_kubeconfig.exists() {
            found.lines.push(format!("file {}", options.write_kubeconfig.display()));
        }
        found
    }

    fn text(&self) -> String {
        let known = self.lines.iter().map(|line| format!("  {line}\n"));
        let unknown = self.unknown.iter().map(|line| format!("  cannot look at {line}\n"));
        known.chain(unknown).collect()
    }
}

/// `clusterd uninstall`.
pub async fn uninstall(options: UninstallOptions) -> anyhow::Result<i32> {
    let host = &options.host;
    anyhow::ensure!(
        !is_running(&host.data_dir)?,
        "a server runs on {}: stop it first",
        host.data_dir.display()
    );
    refuse_system_directory(&host.data_dir)?;
    let before = Inventory::find(host).await;
    if before.lines.is_empty() && before.unknown.is_empty() {
        println!("Nothing of clusterd is on this host.");
        return Ok(0);
    }
    println!("To be removed:\n{}", before.text());
    if !options.yes && !agreed()? {
        eprintln!("nothing was removed");
        return Ok(EXIT_FAILURE);
    }
    remove(host).await;
    let after = Inventory::find(host).await;
    if after.lines.is_empty() && after.unknown.is_empty() {
        println!("Removed.");
        return Ok(0);
    }
    eprintln!("error: this is left:\n{}", after.text());
    Ok(EXIT_FAILURE)
}

/// Removes as much as it can; each failure is told, and what is left is listed afterwards.
async fn remove(host: &HostOptions) {
    let engine = match DockerEngine::new(&host.docker_host) {
        Ok(engine) => Made::find(&engine, &host.node_name).await.map(|made| (engine, made)),
        Err(error) => Err(error),
    };
    match engine {
        Ok((engine, made)) => {
            if let Err(error) = made.remove(&engine).await {
                eprintln!("containers and images: {error}");
            }
        }
        Err(error) => eprintln!("containers and images: {error}"),
    }
    // Never remove through a mount: what is mounted may be the user's.
    let unmounted = leftovers::unmount(&host.data_dir);
    let left = leftovers::mounts(&host.data_dir).is_ok_and(|mounts| mounts.is_empty());
    match (unmounted, left) {
        (Ok(()), true) => {
            tell("data", std::fs::remove_dir_all(&host.data_dir));
        }
        (Err(error), _) => eprintln!("mounts: {error}; the data directory stays"),
        (Ok(()), false) => eprintln!("mounts are left; the data directory stays"),
    }
    if let Err(error) = net::uninstall() {
        eprintln!("network: {error:#}");
    }
    tell("kubeconfig", std::fs::remove_file(&host.write_kubeconfig));
    // Its folder is ours only if nothing else is in it.
    if let Some(parent) = host.write_kubeconfig.parent()
        && parent == Path::new("/etc/clusterd")
    {
        let _ = std::fs::remove_dir(parent);
    }
}

fn tell(what: &str, result: std::io::Result<()>) {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => eprintln!("{what}: {error}"),
        _ => {}
    }
}

/// A directory that can only be named by mistake.
fn refuse_system_directory(data: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let real: PathBuf = data.canonicalize()?;
    let ours = ["store", "pki", "node", "cluster-id"].iter().any(|name| real.join(name).exists());
    let empty = std::fs::read_dir(&real)?.next().is_none();
    anyhow::ensure!(
        real.components().count() > 2 && (ours || empty),
        "{} is no data directory of clusterd",
        data.display()
    );
    Ok(())
}

fn agreed() -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    anyhow::ensure!(stdin.is_terminal(), "say --yes to remove this without being asked");
    print!("Remove all of this? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_someone_else_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_system_directory(dir.path()).is_ok());
        std::fs::write(dir.path().join("letter"), "").unwrap();
        assert!(refuse_system_directory(dir.path()).is_err());
        std::fs::write(dir.path().join("cluster-id"), "").unwrap();
        assert!(refuse_system_directory(dir.path()).is_ok());
        assert!(refuse_system_directory(Path::new("/")).is_err());
        assert!(refuse_system_directory(Path::new("/etc")).is_err());
    }

    #[test]
    fn what_is_missing_is_told_with_how_to_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
        let said = cgroups(dir.path()).unwrap_err();
        assert!(said.contains("memory") && said.contains("subtree_control"), "{said}");
        assert!(clock(0).is_err() && clock(CLOCK_MIN_SECONDS).is_ok());
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        assert!(port(number, false, "--https-port").unwrap_err().contains("--https-port"));
        assert!(port(number, true, "--https-port").is_ok());
    }
}
