//! A pod's setup: volumes and tokens, the sandbox, its network, the files of its name service.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{RETRY, Ready};
use crate::client::{Target, WriteOptions};
use crate::object::{Gvr, meta, time};
use crate::reconcile::{EventType, Object};
use crate::runtime::engine::{Container, EngineError, State};
use crate::runtime::env::Snapshot;
use crate::runtime::pods::Model;
use crate::runtime::volumes::{self, Tokens, Volumes};
use crate::runtime::{Host, SharedHost, assemble, carried, files, labels, plan, sources};

/// Everything that a pod's environment and volumes are made of, as it is now.
pub(super) async fn snapshot(
    host: &Host,
    model: &Model,
    addresses: &[IpAddr],
) -> Result<Snapshot, String> {
    let wanted = sources::wanted(model);
    let found = host.sources.read(model.pod.namespace(), &wanted).await?;
    Ok(Snapshot {
        config_maps: found.config_maps,
        secrets: found.secrets,
        services: Vec::new(),
        node: host.facts(),
        addresses: addresses.to_vec(),
    })
}

/// Volumes, sandbox and network of a pod; everything that is there already is kept.
pub(super) async fn setup(
    host: &Host,
    model: &Model,
    attempt: u32,
    existing: Option<Container>,
) -> Result<Ready, String> {
    let pod_dir = host.config.pod_dir(model.pod.uid());
    let mounts = async {
        let prepared = prepare_volumes(host, model, &[]).await;
        prepared.inspect_err(|error| {
            host.pod_event(model, EventType::Warning, "FailedMount", error.clone());
        })
    };
    let sandbox = async {
        let made = provide_sandbox(host, model, attempt, existing).await;
        made.map_err(|error| {
            let message = format!("Failed to create pod sandbox: {error}");
            host.pod_event(model, EventType::Warning, "FailedCreatePodSandBox", message);
            error
        })
    };
    let (mounts, sandbox) = tokio::join!(mounts, sandbox);
    let (volumes, renew) = mounts?;
    let (sandbox, addresses) = sandbox?;
    let text = |error: std::io::Error| format!("cannot write the pod's files: {error}");
    write_files(host, model, &pod_dir, &addresses).await.map_err(text)?;
    Ok(Ready { sandbox, addresses, volumes, renew })
}

async fn provide_sandbox(
    host: &Host,
    model: &Model,
    attempt: u32,
    existing: Option<Container>,
) -> Result<(Container, Vec<IpAddr>), String> {
    let container = match existing.filter(|existing| plan::runs(Some(existing))) {
        Some(running) => running,
        None => make_sandbox(host, model, attempt).await.map_err(|error| error.to_string())?,
    };
    if model.host_network() {
        return Ok((container, Vec::new()));
    }
    let State::Running { pid, .. } = container.state else {
        return Err("the sandbox ended at once".to_owned());
    };
    let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
    match host.network.attach(&model.reference(), &netns).await {
        Ok(addresses) => Ok((container, addresses.ips)),
        Err(error) => {
            // A sandbox without a network is of no use; the next attempt starts afresh.
            host.engine.remove(&container.id).await.ok();
            Err(format!("failed to set up pod network: {error:#}"))
        }
    }
}

async fn make_sandbox(host: &Host, model: &Model, attempt: u32) -> Result<Container, EngineError> {
    let spec = assemble::sandbox(host, model, attempt, carried::PAUSE_IMAGE);
    let id = match host.engine.create(&spec).await {
        Err(EngineError::NotFound(_)) => {
            // Someone removed the image; we carry it.
            carried::provide_pause(host.engine.as_ref()).await?;
            host.engine.create(&spec).await?
        }
        Err(EngineError::Conflict(_)) => {
            // Left half made by a process that was killed.
            remove_named(host, model, labels::SANDBOX_NAME, attempt).await?;
            host.engine.create(&spec).await?
        }
        other => other?,
    };
    host.engine.start(&id).await?;
    host.engine.inspect(&id).await
}

pub(super) async fn remove_named(
    host: &Host,
    model: &Model,
    container: &str,
    attempt: u32,
) -> Result<(), EngineError> {
    for found in host.engine.list(labels::POD_UID, model.pod.uid()).await? {
        let named = found.labels.get(labels::CONTAINER).is_some_and(|name| name == container);
        if named && plan::attempt_of(&found) == attempt {
            host.engine.remove(&found.id).await?;
        }
    }
    Ok(())
}

async fn write_files(
    host: &Host,
    model: &Model,
    pod_dir: &Path,
    addresses: &[IpAddr],
) -> std::io::Result<()> {
    let domain = &host.config.cluster_domain;
    tokio::fs::create_dir_all(pod_dir).await?;
    let own_hosts = match model.host_network() {
        true => tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default(),
        false => String::new(),
    };
    let hosts = files::hosts(model, domain, addresses, &own_hosts);
    // In place: containers that run already have this very file mounted.
    tokio::fs::write(pod_dir.join("etc-hosts"), hosts).await?;
    let resolver = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    let resolver = files::resolv_conf(model, host.config.cluster_dns, domain, &resolver);
    tokio::fs::write(pod_dir.join("resolv.conf"), resolver).await
}

async fn prepare_volumes(
    host: &Host,
    model: &Model,
    addresses: &[IpAddr],
) -> Result<(Volumes, Option<Timestamp>), String> {
    let pod_dir = host.config.pod_dir(model.pod.uid());
    let snapshot = snapshot(host, model, addresses).await?;
    let (tokens, renew) = tokens(host, model).await?;
    let model = model.clone();
    let prepare = move || volumes::prepare(&pod_dir, &model, &snapshot, &tokens);
    let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| error.to_string())?;
    Ok((prepared.map_err(|error| error.to_string())?, renew))
}

/// Volumes again, because something that they show has changed.
pub(super) async fn refresh(
    host: SharedHost,
    model: Arc<Model>,
    addresses: Vec<IpAddr>,
) -> Result<Option<Timestamp>, String> {
    prepare_volumes(&host, &model, &addresses).await.map(|(_, renew)| renew)
}

/// New tokens for all projected volumes, and when they have to be renewed.
async fn tokens(host: &Host, model: &Model) -> Result<(Tokens, Option<Timestamp>), String> {
    let mut tokens = Tokens::new();
    let mut renew: Option<Timestamp> = None;
    for volume in model.spec().volumes.iter().flatten() {
        let sources = volume.projected.iter().flat_map(|all| all.sources.iter().flatten());
        for source in sources.filter_map(|source| source.service_account_token.as_ref()) {
            let (token, due) = token(host, model, source).await?;
            renew = Some(renew.map_or(due, |known| known.min(due)));
            tokens.insert((volume.name.clone(), source.path.clone()), token);
        }
    }
    Ok((tokens, renew))
}

async fn token(
    host: &Host,
    model: &Model,
    source: &k8s_openapi::api::core::v1::ServiceAccountTokenProjection,
) -> Result<(String, Timestamp), String> {
    let account = model.spec().service_account_name.as_deref().filter(|name| !name.is_empty());
    let account = account.unwrap_or("default");
    let pod = &model.pod;
    let audiences: Vec<&str> =
        source.audience.as_deref().filter(|text| !text.is_empty()).into_iter().collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": source.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid(),
            },
        },
    });
    let accounts = Gvr::new("", "v1", "serviceaccounts");
    let target = Target::object(&accounts, pod.namespace(), account).sub("token");
    let answer = host.client.create(&target, body, &WriteOptions::default()).await;
    let answer = answer.map_err(|status| format!("failed to fetch token: {status}"))?;
    let token = meta::text(&answer, &["status", "token"]).to_owned();
    let now = host.clock.now();
    let expires = time::parse(meta::text(&answer, &["status", "expirationTimestamp"]));
    let lifetime =
        expires.map_or(RETRY, |expires| expires.duration_since(now).try_into().unwrap_or(RETRY));
    // At four fifths of its life, and daily, as upstream.
    let due = lifetime.mul_f64(0.8).min(Duration::from_secs(24 * 3600)).max(RETRY);
    Ok((token, now + due))
}
