//! The Node object and its lease: what the machine has, and whether it is well.
//!
//! Why two beats: the lease (10 s) says that the node lives and costs little; the status is written
//! when something changed, or every five minutes, and at once when the engine is lost or back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::engine::Image;
use super::{Host, Machine, NodeConfig, SharedHost};
use crate::client::{PatchKind, Target, WriteOptions};
use crate::object::quantity::Quantity;
use crate::object::status::Result;
use crate::object::{Gvr, meta, time};
use crate::reconcile::EventType;
use crate::stdx::backoff::Backoff;
use crate::stdx::tasks::Policy;

/// How often the lease is renewed, and the node looked at.
const BEAT: Duration = Duration::from_secs(10);
/// How long a lease holds, in seconds (upstream's).
const LEASE_SECONDS: i64 = 40;
/// How often a status without news is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// Pods that a node takes (upstream's).
const PODS_MAX: i64 = 110;
/// Memory below which a node is under pressure, and that pods don't get (upstream's).
const MEMORY_RESERVE: i64 = 100 << 20;
/// Images that the Node object lists (upstream's).
const IMAGES_MAX: usize = 50;
/// Part of the disk below which a node is under pressure, in percent (upstream's).
const DISK_FREE_MIN_PERCENT: u64 = 10;
const RETRY: Policy =
    Policy::Restart(Backoff::new(Duration::from_millis(200), Duration::from_secs(5)));

/// What the machine has.
pub fn machine(data_dir: &Path) -> anyhow::Result<Machine> {
    let memory =
        meminfo("MemTotal").ok_or_else(|| anyhow::anyhow!("/proc/meminfo is unreadable"))?;
    let disk = rustix::fs::statvfs(data_dir)?;
    Ok(Machine {
        cpus: i64::try_from(std::thread::available_parallelism()?.get())?,
        memory,
        disk: i64::try_from(disk.f_blocks * disk.f_frsize)?,
        oom_floor: oom_floor(),
    })
}

/// Lowering the score takes CAP_SYS_RESOURCE; some virtual machines and nested hosts have none, and
/// the engine then starts no container that asks for it.
fn oom_floor() -> i64 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    if capabilities.is_some_and(|all| all & SYS_RESOURCE != 0) {
        return -1000;
    }
    tracing::warn!("no CAP_SYS_RESOURCE: containers keep at least this process's OOM score");
    read("/proc/self/oom_score_adj").parse().unwrap_or(0)
}

fn meminfo(field: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<i64>().ok()? << 10)
}

/// What the machine has, as resources.
fn capacity(machine: &Machine) -> BTreeMap<String, Quantity> {
    let list = [
        ("cpu", Quantity::from_units(machine.cpus)),
        ("memory", Quantity::from_bytes(machine.memory)),
        ("ephemeral-storage", Quantity::from_bytes(machine.disk)),
        ("pods", Quantity::from_units(PODS_MAX)),
    ];
    list.map(|(name, quantity)| (name.to_owned(), quantity)).into()
}

/// What pods may use in all.
pub fn allocatable(machine: &Machine) -> BTreeMap<String, Quantity> {
    let mut list = capacity(machine);
    let memory = (machine.memory - MEMORY_RESERVE).max(0);
    list.insert("memory".to_owned(), Quantity::from_bytes(memory));
    let disk = machine.disk / 100 * (100 - DISK_FREE_MIN_PERCENT as i64);
    list.insert("ephemeral-storage".to_owned(), Quantity::from_bytes(disk));
    list
}

/// The node's labels.
pub fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// Starts the two beats. `health` says whether the engine answers.
pub fn start(host: &SharedHost, health: watch::Receiver<std::result::Result<(), String>>) {
    let own = host.clone();
    host.tasks.spawn("node status", RETRY, move |_| {
        let keeper = Keeper { host: own.clone(), health: health.clone() };
        async move { Ok(keeper.run().await?) }
    });
    let own = host.clone();
    host.tasks.spawn("node lease", RETRY, move |_| {
        let host = own.clone();
        async move { Ok(keep_lease(&host).await?) }
    });
}

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

fn writer() -> WriteOptions {
    WriteOptions { field_manager: "kubelet".to_owned(), ..WriteOptions::default() }
}

struct Keeper {
    host: SharedHost,
    health: watch::Receiver<std::result::Result<(), String>>,
}

impl Keeper {
    async fn run(mut self) -> Result<()> {
        let mut node = self.register().await?;
        let mut written = None::<Duration>;
        loop {
            let status = self.status(&node).await;
            let now = self.host.clock.monotonic();
            let late = written.is_none_or(|written| now - written >= STATUS_INTERVAL);
            if late || differs(node.get("status").unwrap_or(&Value::Null), &status) {
                node = self.write(&node, status).await?;
                written = Some(now);
            }
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                _ = self.health.changed() => {}
            }
        }
    }

    /// The Node object, made if it is missing; own labels are kept up.
    async fn register(&self) -> Result<Value> {
        let host = &self.host;
        let target = Target::object(&nodes(), "", &host.config.name);
        let labels = labels(&host.config);
        let patch = json!({"metadata": {"labels": labels}});
        match host.client.patch(&target, PatchKind::Merge, patch, &writer()).await {
            Err(status) if status.is_not_found() => {}
            other => return other,
        }
        let mut spec = json!({});
        if let Some(first) = host.config.pod_cidrs.first() {
            spec = json!({"podCIDR": first, "podCIDRs": host.config.pod_cidrs});
        }
        if !host.config.taints.is_empty() {
            spec["taints"] = json!(host.config.taints);
        }
        let mut body = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": host.config.name, "labels": labels},
            "spec": spec,
        });
        body["status"] = self.status(&body).await;
        let collection = Target::all(&nodes(), "");
        let made = host.client.create(&collection, body, &writer()).await?;
        self.tell(EventType::Normal, "Starting", "Starting kubelet.");
        Ok(made)
    }

    fn tell(&self, kind: EventType, reason: &str, message: &str) {
        let name = &self.host.config.name;
        let regarding = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..Default::default()
        };
        self.host.recorder.event(&regarding, kind, reason, message);
    }

    async fn write(&self, node: &Value, status: Value) -> Result<Value> {
        let ready = |status: &Value| {
            let list = status.get("conditions").and_then(Value::as_array);
            let mut list = list.into_iter().flatten();
            list.find(|one| one["type"] == "Ready").map(|one| one["status"].clone())
        };
        let (before, after) = (node.get("status").and_then(ready), ready(&status));
        let target = Target::object(&nodes(), "", &self.host.config.name).sub("status");
        let body = json!({"status": status});
        let client = &self.host.client;
        let written = client.patch(&target, PatchKind::Strategic, body, &writer()).await?;
        if before != after {
            let reason = if after == Some(json!("True")) { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {reason}", self.host.config.name);
            self.tell(EventType::Normal, reason, &message);
        }
        Ok(written)
    }

    async fn status(&self, node: &Value) -> Value {
        let host = &self.host;
        let texts = |list: BTreeMap<String, Quantity>| -> BTreeMap<String, String> {
            list.into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect()
        };
        let mut status = json!({
            "capacity": texts(capacity(&host.machine)),
            "allocatable": texts(allocatable(&host.machine)),
            "addresses": [
                {"type": "InternalIP", "address": host.config.ip.to_string()},
                {"type": "Hostname", "address": host.config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": host.config.port}},
            "nodeInfo": node_info(host),
            "conditions": self.conditions(node),
        });
        if let Ok(images) = host.engine.images().await {
            status["images"] = image_list(images);
        }
        status
    }

    fn conditions(&self, node: &Value) -> Vec<Value> {
        let now = self.host.clock.now();
        let known = meta::at(node, &["status", "conditions"]).and_then(Value::as_array);
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let pressure = |name: &str, holds: bool, what: [&str; 4]| {
            let [bad, bad_text, good, good_text] = what;
            let (value, reason, text) = match holds {
                true => ("True", bad, bad_text),
                false => ("False", good, good_text),
            };
            condition(known, name, value, reason, text, now)
        };
        let ready = match &*self.health.borrow() {
            Ok(()) => condition(
                known,
                "Ready",
                "True",
                "KubeletReady",
                "kubelet is posting ready status",
                now,
            ),
            Err(error) => condition(known, "Ready", "False", "KubeletNotReady", error, now),
        };
        vec![
            pressure(
                "MemoryPressure",
                memory_low(),
                [
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ],
            ),
            pressure(
                "DiskPressure",
                disk_low(&self.host.config.data_dir),
                [
                    "KubeletHasDiskPressure",
                    "kubelet has disk pressure",
                    "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure",
                ],
            ),
            pressure(
                "PIDPressure",
                false,
                [
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ],
            ),
            ready,
        ]
    }
}

fn memory_low() -> bool {
    meminfo("MemAvailable").is_some_and(|free| free < MEMORY_RESERVE)
}

fn disk_low(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|disk| disk.f_bavail * 100 < disk.f_blocks * DISK_FREE_MIN_PERCENT)
}

fn condition(
    known: &[Value],
    name: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let before = known.iter().find(|one| one["type"] == name && one["status"] == value);
    let since = before.and_then(|one| one["lastTransitionTime"].as_str().map(str::to_owned));
    json!({
        "type": name,
        "status": value,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": time::seconds(now),
        "lastTransitionTime": since.unwrap_or_else(|| time::seconds(now)),
    })
}

/// Whether a status says something new, heartbeats aside.
fn differs(old: &Value, new: &Value) -> bool {
    let plain = |conditions: &Value| -> Vec<Value> {
        let list = conditions.as_array().into_iter().flatten();
        let bare = |one: &Value| json!([one["type"], one["status"], one["reason"], one["message"]]);
        list.map(bare).collect()
    };
    let fields = new.as_object().into_iter().flatten();
    fields.into_iter().any(|(field, value)| match field.as_str() {
        "conditions" => {
            let old = plain(&old["conditions"]);
            plain(value).iter().any(|one| !old.contains(one))
        }
        // Others may add resources of their own.
        "capacity" | "allocatable" => value
            .as_object()
            .is_some_and(|list| list.iter().any(|(name, text)| old[field].get(name) != Some(text))),
        _ => old.get(field) != Some(value),
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn node_info(host: &Host) -> Value {
    let engine = host.engine_info.read().clone();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    let name = rustix::system::uname();
    json!({
        "architecture": labels(&host.config)["kubernetes.io/arch"],
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "containerRuntimeVersion": format!("docker://{}", engine.version),
        "kernelVersion": name.release().to_string_lossy(),
        "kubeProxyVersion": host.config.version,
        "kubeletVersion": host.config.version,
        "machineID": machine_id,
        "operatingSystem": "linux",
        "osImage": engine.os_image,
        "systemUUID": if uuid.is_empty() { machine_id.clone() } else { uuid },
    })
}

fn image_list(mut images: Vec<Image>) -> Value {
    let named = |list: &[String]| -> Vec<String> {
        list.iter().filter(|name| !name.contains("<none>")).cloned().collect()
    };
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.iter().filter_map(|image| {
        let names = [named(&image.digests), named(&image.tags)].concat();
        (!names.is_empty()).then(|| json!({"names": names, "sizeBytes": image.size}))
    });
    shown.take(IMAGES_MAX).collect()
}

/// Renews the lease for ever.
async fn keep_lease(host: &Arc<Host>) -> Result<()> {
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let name = &host.config.name;
    let target = Target::object(&leases, "kube-node-lease", name);
    loop {
        let renewed = json!({"spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": time::micros(host.clock.now()),
        }});
        let client = &host.client;
        match client.patch(&target, PatchKind::Merge, renewed.clone(), &writer()).await {
            Err(status) if status.is_not_found() => {
                let node = client.get(&Target::object(&nodes(), "", name)).await?;
                let mut lease = renewed;
                lease["apiVersion"] = json!("coordination.k8s.io/v1");
                lease["kind"] = json!("Lease");
                lease["metadata"] = json!({
                    "name": name,
                    "namespace": "kube-node-lease",
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Node", "name": name, "uid": meta::uid(&node),
                    }],
                });
                let collection = Target::all(&leases, "kube-node-lease");
                client.create(&collection, lease, &writer()).await?;
            }
            other => drop(other?),
        }
        tokio::time::sleep(BEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_alone_is_no_news_and_foreign_resources_stay_foreign() {
        let now = Timestamp::from_second(100).unwrap();
        let status = |now, value| {
            json!({"capacity": {"cpu": "2"}, "conditions": [
                condition(&[], "Ready", value, "KubeletReady", "", now)]})
        };
        let mut old = status(now, "True");
        old["capacity"]["example.com/foo"] = json!("5");
        let later = Timestamp::from_second(200).unwrap();
        assert!(!differs(&old, &status(later, "True")));
        assert!(differs(&old, &status(later, "False")));
        let known = old["conditions"].as_array().unwrap();
        let kept = condition(known, "Ready", "True", "", "", later);
        assert_eq!(kept["lastTransitionTime"], time::seconds(now));
    }
}
