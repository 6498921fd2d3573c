//! What pods use: `/stats/summary` and the resource metrics.
//!
//! Why asked for and not collected: figures are read when someone wants them; an idle node does no
//! work for them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::engine::Usage;
use super::pods::Model;
use super::{Host, SharedHost};
use crate::object::time;
use crate::reconcile::Object;

/// Containers that are asked about at the same time.
const ASKED_AT_ONCE: usize = 8;

/// A running container and what it uses.
struct Measured {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started: String,
    usage: Usage,
}

async fn measure(host: &SharedHost) -> Vec<Measured> {
    let mut running = Vec::new();
    for pod in host.pods.list("") {
        let model = Model::new(pod.clone());
        for unit in &model.units {
            let Some(status) = model.old_status(unit.name()) else { continue };
            let state = status.state.as_ref().and_then(|state| state.running.as_ref());
            let (Some(state), Some(id)) = (state, status.container_id.as_deref()) else { continue };
            let started = state.started_at.as_ref().map(|at| time::seconds(at.0));
            let id = id.trim_start_matches("docker://").to_owned();
            running.push((pod.clone(), unit.name().to_owned(), started.unwrap_or_default(), id));
        }
    }
    type Asked = (Arc<core::Pod>, String, String, String);
    let ask = |(pod, container, started, id): Asked| async move {
        let usage = host.engine.usage(&id).await.ok()?;
        Some(Measured {
            namespace: pod.namespace().to_owned(),
            pod: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            container,
            started,
            usage,
        })
    };
    let asked = futures::stream::iter(running).map(ask).buffered(ASKED_AT_ONCE);
    asked.filter_map(std::future::ready).collect().await
}

fn cpu_and_memory(usage: &Usage, now: &str) -> (Value, Value) {
    let cpu = json!({"time": now, "usageCoreNanoSeconds": usage.cpu_nanos});
    let memory = json!({
        "time": now,
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set,
        "rssBytes": usage.rss,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    (cpu, memory)
}

fn sum(all: &[&Measured]) -> Usage {
    let mut total = Usage::default();
    for Measured { usage, .. } in all {
        total.cpu_nanos += usage.cpu_nanos;
        total.memory += usage.memory;
        total.working_set += usage.working_set;
        total.rss += usage.rss;
        total.page_faults += usage.page_faults;
        total.major_page_faults += usage.major_page_faults;
        total.pids += usage.pids;
    }
    total
}

/// CPU time and memory of the whole machine.
fn machine_usage(host: &Host) -> Usage {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or("");
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    // User, nice, system; hardware and software interrupts; stolen. A tick is 10 ms.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        number.unwrap_or(0_u64) << 10
    };
    let total = u64::try_from(host.machine.memory).unwrap_or(0);
    Usage {
        cpu_nanos: busy * 10_000_000,
        memory: total.saturating_sub(of("MemFree")),
        working_set: total.saturating_sub(of("MemAvailable")),
        rss: of("AnonPages"),
        ..Usage::default()
    }
}

/// `/stats/summary`.
pub async fn summary(host: &SharedHost) -> Value {
    let now = time::seconds(host.clock.now());
    let measured = measure(host).await;
    let mut by_pod = BTreeMap::<&str, Vec<&Measured>>::new();
    for one in &measured {
        by_pod.entry(&one.uid).or_default().push(one);
    }
    let pods: Vec<Value> = by_pod
        .values()
        .filter_map(|all| {
            let first = all.first()?;
            let (cpu, memory) = cpu_and_memory(&sum(all), &now);
            let containers: Vec<Value> = all
                .iter()
                .map(|one| {
                    let (cpu, memory) = cpu_and_memory(&one.usage, &now);
                    json!({"name": one.container, "startTime": one.started, "cpu": cpu,
                        "memory": memory})
                })
                .collect();
            Some(json!({
                "podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.uid},
                "startTime": first.started,
                "containers": containers,
                "cpu": cpu,
                "memory": memory,
                "process_stats": {"process_count": sum(all).pids},
            }))
        })
        .collect();
    let machine = machine_usage(host);
    let (cpu, memory) = cpu_and_memory(&machine, &now);
    json!({"node": {"nodeName": host.config.name, "cpu": cpu, "memory": memory}, "pods": pods})
}

/// `/metrics/resource`, which the metrics server reads.
pub async fn resource_metrics(host: &SharedHost) -> String {
    let measured = measure(host).await;
    let at = host.clock.now().as_millisecond();
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        // Writing to a string can't fail.
        write!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n").ok();
    };
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let name = "container_cpu_usage_seconds_total";
    head(
        &mut out,
        name,
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for one in &measured {
        let labels = labels(one);
        writeln!(out, "{name}{{{labels}}} {} {at}", seconds(one.usage.cpu_nanos)).ok();
    }
    let name = "container_memory_working_set_bytes";
    head(&mut out, name, "gauge", "Current working set of the container in bytes");
    for one in &measured {
        writeln!(out, "{name}{{{}}} {} {at}", labels(one), one.usage.working_set).ok();
    }
    let machine = machine_usage(host);
    let name = "node_cpu_usage_seconds_total";
    head(&mut out, name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
    writeln!(out, "{name} {} {at}", seconds(machine.cpu_nanos)).ok();
    let name = "node_memory_working_set_bytes";
    head(&mut out, name, "gauge", "Current working set of the node in bytes");
    writeln!(out, "{name} {} {at}", machine.working_set).ok();
    out
}

fn labels(one: &Measured) -> String {
    let Measured { container, namespace, pod, .. } = one;
    format!("container={container:?},namespace={namespace:?},pod={pod:?}")
}

/// `/metrics`: the node's own figures.
pub fn own_metrics(host: &Host) -> String {
    let pods = host.pods.list("");
    let running = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running")
    });
    format!(
        "# HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n",
        running.count()
    )
}
