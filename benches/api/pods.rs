//! Pods: from create to Running as a watch sees it, beside the same two containers made raw.
//!
//! Why beside raw Docker calls: the engine decides most of the time, so what clusterd adds is the
//! difference between the two at the same width, measured in turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters as query;
use clusterd::client::http::Http;
use clusterd::client::{Client, DeleteOptions, ListOptions, Target, WatchEvent, WriteOptions};
use clusterd::object::{Gvr, Value, meta};
use clusterd::stdx::tasks::Tasks;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::meter;

const ROUNDS: usize = 5;
/// How many at once.
const WIDTHS: [usize; 2] = [1, 10];
const PAUSE: &str = clusterd::runtime::carried::PAUSE_IMAGE;
const SAMPLE: &str = clusterd::runtime::carried::SAMPLE_IMAGES[0].0;
/// A pod that takes longer will never run.
const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "default";

fn refused(status: clusterd::object::status::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message)
}

/// Follows the pods of `NAMESPACE` from now on.
async fn watch(client: &dyn Client) -> anyhow::Result<clusterd::client::Watch> {
    let pods = Target::all(&Gvr::new("", "v1", "pods"), NAMESPACE);
    let list = client.list(&pods, &ListOptions::default()).await.map_err(refused)?;
    let from = list.resource_version.to_string();
    let options = ListOptions { resource_version: from, ..ListOptions::default() };
    client.watch(&pods, &options).await.map_err(refused)
}

/// Calls `seen` with each change of a pod until it says that it is enough.
async fn follow(
    watch: &mut clusterd::client::Watch,
    mut seen: impl FnMut(bool, &Value) -> bool,
) -> anyhow::Result<()> {
    let follow = async {
        loop {
            let (there, bytes) = match watch.next().await.context("the watch ended")? {
                Ok(WatchEvent::Added(bytes) | WatchEvent::Modified(bytes)) => (true, bytes),
                Ok(WatchEvent::Deleted(bytes)) => (false, bytes),
                Ok(WatchEvent::Bookmark { .. }) => continue,
                Err(status) => return Err(refused(status)),
            };
            if seen(there, &serde_json::from_slice(&bytes)?) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, follow).await.context("pods did not get there in time")?
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Deploys the sample with `count` replicas and waits until each is Ready.
pub async fn deploy(client: &dyn Client, count: usize) -> anyhow::Result<()> {
    let mut pods = watch(client).await?;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "footprint"},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": {"app": "footprint"}},
            "template": {
                "metadata": {"labels": {"app": "footprint"}},
                "spec": {"containers": [{"name": "sample", "image": SAMPLE}]},
            },
        },
    });
    let target = Target::all(&Gvr::new("apps", "v1", "deployments"), NAMESPACE);
    client.create(&target, deployment, &WriteOptions::default()).await.map_err(refused)?;
    let mut ready = HashMap::new();
    follow(&mut pods, |there, pod| {
        ready.insert(meta::name(pod).to_owned(), there && is_ready(pod));
        ready.values().filter(|ready| **ready).count() == count
    })
    .await
}

/// Creates `width` pods at once; gives what each took to Running, and all of them together.
async fn ours(
    client: &Arc<Http>,
    tasks: &Tasks,
    prefix: &str,
    width: usize,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let mut pods = watch(&**client).await?;
    let began = Instant::now();
    let (failed, mut failures) = mpsc::channel(width);
    for at in 0..width {
        let (client, failed) = (client.clone(), failed.clone());
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{prefix}-{at}")},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "sample", "image": SAMPLE}],
            },
        });
        tasks.spawn_once("create", async move {
            let target = Target::all(&Gvr::new("", "v1", "pods"), NAMESPACE);
            if let Err(status) = client.create(&target, pod, &WriteOptions::default()).await {
                let _ = failed.send(refused(status)).await;
            }
        });
    }
    drop(failed);
    let mut times: HashMap<String, Duration> = HashMap::new();
    let running = follow(&mut pods, |_, pod| {
        if pod["status"]["phase"] == "Running" && meta::name(pod).starts_with(prefix) {
            times.entry(meta::name(pod).to_owned()).or_insert_with(|| began.elapsed());
        }
        times.len() == width
    });
    tokio::select! {
        done = running => done?,
        Some(error) = failures.recv() => return Err(error),
    }
    let whole = began.elapsed();
    for name in times.keys() {
        let target = Target::object(&Gvr::new("", "v1", "pods"), NAMESPACE, name);
        let options = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
        client.delete(&target, &options).await.map_err(refused)?;
    }
    settle(&times).await?;
    Ok((times.into_values().collect(), whole))
}

/// Waits until the deleted pods' containers are gone, so that the next turn has the engine alone.
async fn settle(pods: &HashMap<String, Duration>) -> anyhow::Result<()> {
    let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let options = query::ListContainersOptionsBuilder::default().all(true).build();
        let found = docker.list_containers(Some(options)).await?;
        let left = found
            .iter()
            .flat_map(|one| one.names.iter().flatten())
            .any(|name| pods.keys().any(|pod| name.contains(&format!("_{pod}_{NAMESPACE}_"))));
        if !left {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("containers of deleted pods are still there")
}

async fn container(docker: &Docker, name: &str, image: &str, network: &str) -> anyhow::Result<()> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = query::CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await?;
    docker.start_container(name, None::<query::StartContainerOptions>).await?;
    Ok(())
}

/// The engine's own time for what a pod is: two containers, the second in the first's network.
async fn raw(
    docker: &Docker,
    tasks: &Tasks,
    prefix: &str,
    width: usize,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let began = Instant::now();
    let (done, mut all) = mpsc::channel(width);
    let pause = |at: usize| format!("bench-{prefix}-{at}-pause");
    let sample = |at: usize| format!("bench-{prefix}-{at}-sample");
    for at in 0..width {
        let (docker, done) = (docker.clone(), done.clone());
        let (pause, sample) = (pause(at), sample(at));
        tasks.spawn_once("raw", async move {
            let result = async {
                container(&docker, &pause, PAUSE, "none").await?;
                container(&docker, &sample, SAMPLE, &format!("container:{pause}")).await
            };
            let result = result.await.map(|()| began.elapsed());
            let _ = done.send(result).await;
        });
    }
    drop(done);
    let mut times = Vec::new();
    while let Some(took) = all.recv().await {
        times.push(took);
    }
    let whole = began.elapsed();
    for name in (0..width).flat_map(|at| [sample(at), pause(at)]) {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        // One that was never made can't be removed; the failure to make it is what counts.
        let _ = docker.remove_container(&name, Some(options)).await;
    }
    Ok((times.into_iter().collect::<anyhow::Result<_>>()?, whole))
}

/// Both sides in turns, for each width.
pub async fn run(client: Arc<Http>, tasks: &Tasks) -> anyhow::Result<()> {
    let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
    // Not counted: the node becomes ready and the images are loaded meanwhile.
    ours(&client, tasks, "warm", 1).await?;
    for width in WIDTHS {
        let (mut own, mut engine) = (Vec::new(), Vec::new());
        let (mut more, mut rates) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let prefix = format!("w{width}r{round}");
            let (mut times, whole) = ours(&client, tasks, &prefix, width).await?;
            let (mut raw_times, raw_whole) = raw(&docker, tasks, &prefix, width).await?;
            let (ms, raw_ms) =
                (meter::percentile(&mut times, 0.5), meter::percentile(&mut raw_times, 0.5));
            let load = meter::load_averages();
            println!(
                "width {width}, round {round}: pod p50 {ms:.0} ms, all {:.0} ms; \
                 raw p50 {raw_ms:.0} ms, all {:.0} ms  load {load}",
                whole.as_secs_f64() * 1000.0,
                raw_whole.as_secs_f64() * 1000.0
            );
            own.push(ms);
            engine.push(raw_ms);
            more.push(ms - raw_ms);
            rates.push(raw_whole.as_secs_f64() / whole.as_secs_f64());
        }
        println!("RESULT width {width}, create to Running p50: {} ms", meter::spread(&own, 0));
        println!("RESULT width {width}, raw create + start p50: {} ms", meter::spread(&engine, 0));
        println!("RESULT width {width}, added: {} ms", meter::spread(&more, 0));
        println!("RESULT width {width}, rate beside raw: {}", meter::spread(&rates, 2));
    }
    Ok(())
}
