//! From a pod to the engine's container specs: where all the pure parts meet.
//!
//! Why one place: what a container gets is the sum of image, environment, volumes, identity,
//! confinement and limits, and a reader must be able to see that nothing is missing.

use std::collections::BTreeMap;
use std::path::Path;

use super::engine::{ContainerSpec, Image, Mount, Namespace, Propagation};
use super::env::{self, Snapshot};
use super::pods::{Kind, Model, Unit};
use super::volumes::{Volumes, host};
use super::{Host, files, labels, resources, security};
use crate::reconcile::Object;

/// Where a container writes its last words when its spec names no path.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// As upstream: the sandbox outlives everything of its pod.
const SANDBOX_OOM_SCORE: i64 = -998;

/// Fields that this node can't honour yet; the pod is refused with the first one's name.
pub fn unsupported(model: &Model) -> Option<String> {
    let spec = model.spec();
    let pod = [
        ("spec.hostUsers: false", spec.host_users == Some(false)),
        ("spec.runtimeClassName", spec.runtime_class_name.is_some()),
        ("spec.resourceClaims", spec.resource_claims.as_ref().is_some_and(|all| !all.is_empty())),
        ("spec.resources", spec.resources.is_some()),
        ("spec.os.name: windows", spec.os.as_ref().is_some_and(|os| os.name == "windows")),
    ];
    if let Some((field, _)) = pod.iter().find(|(_, set)| *set) {
        return Some((*field).to_owned());
    }
    spec.volumes.iter().flatten().find_map(unsupported_volume).or_else(|| {
        let of = |unit: &Unit| {
            let devices = unit.spec.volume_devices.as_ref().is_some_and(|all| !all.is_empty());
            let claims = unit.spec.resources.as_ref().and_then(|own| own.claims.as_ref());
            let signal = unit.spec.lifecycle.as_ref().and_then(|own| own.stop_signal.as_ref());
            // On the host's network a host port is the port itself.
            let own_network = !spec.host_network.unwrap_or(false);
            let mut ports = unit.spec.ports.iter().flatten();
            let fields = [
                ("volumeDevices", devices),
                ("resources.claims", claims.is_some()),
                ("lifecycle.stopSignal", signal.is_some()),
                ("ports.hostPort", own_network && ports.any(|p| p.host_port.unwrap_or(0) > 0)),
            ];
            let (field, _) = fields.into_iter().find(|(_, set)| *set)?;
            Some(format!("{}.{field}", unit.field_path()))
        };
        model.units.iter().find_map(of)
    })
}

fn unsupported_volume(volume: &k8s_openapi::api::core::v1::Volume) -> Option<String> {
    let name = &volume.name;
    let projected = volume.projected.iter().flat_map(|all| all.sources.iter().flatten());
    for source in projected {
        if source.cluster_trust_bundle.is_some() {
            return Some(format!("spec.volumes[{name}].projected.sources.clusterTrustBundle"));
        }
        if source.pod_certificate.is_some() {
            return Some(format!("spec.volumes[{name}].projected.sources.podCertificate"));
        }
    }
    let medium = volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref());
    if medium.is_some_and(|medium| medium.starts_with("HugePages")) {
        return Some(format!("spec.volumes[{name}].emptyDir.medium"));
    }
    let known = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some();
    if known {
        return None;
    }
    // The one source that is set, by its own name.
    let value = serde_json::to_value(volume).unwrap_or_default();
    let source = value.as_object().and_then(|all| all.keys().find(|key| *key != "name").cloned());
    Some(format!("spec.volumes[{name}].{}", source.unwrap_or_else(|| "source".to_owned())))
}

fn base_labels(
    host: &Host,
    model: &Model,
    container: &str,
    attempt: u32,
) -> BTreeMap<String, String> {
    let pairs = [
        (labels::NODE, host.config.name.clone()),
        (labels::POD_UID, model.pod.uid().to_owned()),
        (labels::POD_NAME, model.pod.name().to_owned()),
        (labels::POD_NAMESPACE, model.pod.namespace().to_owned()),
        (labels::CONTAINER, container.to_owned()),
        (labels::ATTEMPT, attempt.to_string()),
        (labels::GRACE, model.spec().termination_grace_period_seconds.unwrap_or(30).to_string()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

fn container_name(model: &Model, container: &str, attempt: u32) -> String {
    let pod = &model.pod;
    let uid = pod.uid();
    format!("k8s_{container}_{}_{}_{uid}_{attempt}", pod.name(), pod.namespace())
}

/// The sandbox of a pod.
pub fn sandbox(host: &Host, model: &Model, attempt: u32, image: &str) -> ContainerSpec {
    let spec = model.spec();
    let context = spec.security_context.as_ref();
    let host_network = model.host_network();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let sysctls = sysctls.into_iter().flatten().map(|one| (one.name.clone(), one.value.clone()));
    let space = |host: Option<bool>| match host {
        Some(true) => Namespace::Host,
        _ => Namespace::Shared,
    };
    ContainerSpec {
        name: container_name(model, labels::SANDBOX_NAME, attempt),
        image: image.to_owned(),
        labels: base_labels(host, model, labels::SANDBOX_NAME, attempt),
        hostname: match host_network {
            true => String::new(),
            false => files::kernel_hostname(model, &host.config.cluster_domain),
        },
        network: if host_network { Namespace::Host } else { Namespace::Own },
        ipc: space(spec.host_ipc),
        pid: if spec.host_pid == Some(true) { Namespace::Host } else { Namespace::Own },
        sysctls: sysctls.collect(),
        resources: super::engine::Resources {
            cpu_shares: 2,
            oom_score_adj: SANDBOX_OOM_SCORE.max(host.machine.oom_floor),
            ..super::engine::Resources::default()
        },
        security: super::engine::Security {
            read_only_root: true,
            no_new_privileges: true,
            ..super::engine::Security::default()
        },
        ..ContainerSpec::default()
    }
}

/// What a container is made from besides its spec.
pub struct Parts<'a> {
    /// The number of the attempt.
    pub attempt: u32,
    /// The sandbox's id.
    pub sandbox: &'a str,
    /// The image.
    pub image: &'a Image,
    /// ConfigMaps, Secrets, Services, addresses.
    pub snapshot: &'a Snapshot,
    /// The pod's volumes.
    pub volumes: &'a Volumes,
    /// The container whose processes are seen (ephemeral containers), by id.
    pub target: Option<&'a str>,
}

/// A container of a pod, or why it can't be made (upstream's words).
pub fn container(
    host: &Host,
    model: &Model,
    unit: &Unit,
    parts: &Parts<'_>,
) -> Result<ContainerSpec, String> {
    let spec = &unit.spec;
    let variables = env::environment(model, unit, parts.snapshot)?;
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| variables.get(name).cloned();
        list.iter().flatten().map(|text| env::expand(text, lookup)).collect()
    };
    let identity = security::identity(model, unit, parts.image)?;
    let engine = host.engine_info.read().clone();
    let seccomp_dir = host.config.data_dir.join("seccomp");
    let (command, args) = (expand(&spec.command), expand(&spec.args));
    if command.is_empty() && args.is_empty() && !parts.image.has_command {
        return Err("no command specified".to_owned());
    }
    let mut all_labels = base_labels(host, model, unit.name(), parts.attempt);
    all_labels.insert(labels::HASH.to_owned(), unit.hash());
    let shown = parts.image.digests.first().unwrap_or(&parts.image.id).clone();
    all_labels.insert(labels::IMAGE.to_owned(), shown);
    let shared = spec_namespace(model, parts.sandbox);
    Ok(ContainerSpec {
        name: container_name(model, unit.name(), parts.attempt),
        image: parts.image.id.clone(),
        labels: all_labels,
        hostname: String::new(),
        command,
        args,
        env: variables.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        user: identity.user,
        groups: identity.groups,
        tty: spec.tty == Some(true),
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        network: match model.host_network() {
            true => Namespace::Host,
            false => Namespace::Of(parts.sandbox.to_owned()),
        },
        ipc: match model.spec().host_ipc {
            Some(true) => Namespace::Host,
            _ => Namespace::Of(parts.sandbox.to_owned()),
        },
        pid: match parts.target {
            Some(id) => Namespace::Of(id.to_owned()),
            None => shared,
        },
        sysctls: BTreeMap::new(),
        mounts: mounts(host, model, unit, parts, &variables)?,
        resources: resources::of(model, unit, &host.machine),
        security: security::confinement(model, unit, &engine, &seccomp_dir)?,
        stop_signal: String::new(),
    })
}

fn spec_namespace(model: &Model, sandbox: &str) -> Namespace {
    if model.spec().host_pid == Some(true) {
        Namespace::Host
    } else if model.spec().share_process_namespace == Some(true) {
        Namespace::Of(sandbox.to_owned())
    } else {
        Namespace::Own
    }
}

/// The file on the host that holds a container's last words.
pub fn termination_file(pod_dir: &Path, container: &str, attempt: u32) -> std::path::PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

fn mounts(
    host: &Host,
    model: &Model,
    unit: &Unit,
    parts: &Parts<'_>,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let pod_dir = host.config.pod_dir(model.pod.uid());
    let mut mounts = Vec::new();
    for (position, mount) in unit.spec.volume_mounts.iter().flatten().enumerate() {
        if mount.recursive_read_only.as_deref() == Some("Enabled") {
            return Err(format!(
                "volumeMounts[{position}].recursiveReadOnly: Enabled is not supported by this node"
            ));
        }
        let Some(volume) = parts.volumes.get(&mount.name) else {
            return Err(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name,
                unit.name()
            ));
        };
        let sub = match mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => expand_strictly(text, variables)?,
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let source = match sub.is_empty() {
            true => volume.clone(),
            false => {
                let folder = pod_dir.join("volume-subpaths").join(&mount.name).join(unit.name());
                let target = folder.join(position.to_string());
                host::sub_path(volume, &sub, &target)?;
                target
            }
        };
        let content = is_content(model, &mount.name);
        mounts.push(Mount {
            source: source.display().to_string(),
            target: absolute(&mount.mount_path),
            read_only: content || mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::FromHost,
                Some("Bidirectional") => Propagation::Both,
                _ => Propagation::Private,
            },
        });
    }
    own_files(unit, parts, &pod_dir, &mut mounts)?;
    Ok(mounts)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// ConfigMaps, secrets, projected and downward volumes are shown read-only.
fn is_content(model: &Model, name: &str) -> bool {
    let mut volumes = model.spec().volumes.iter().flatten();
    volumes.any(|volume| {
        volume.name == *name && volume.host_path.is_none() && volume.empty_dir.is_none()
    })
}

/// In a subPathExpr an unknown variable is an error, not text.
fn expand_strictly(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let missing = std::cell::Cell::new(false);
    let expanded = env::expand(text, |name| {
        let found = variables.get(name).cloned();
        missing.set(missing.get() || found.is_none());
        found
    });
    match missing.get() {
        false => Ok(expanded),
        true => Err(format!("missing value for {text:?}")),
    }
}

/// `/etc/hosts`, `/etc/resolv.conf` and the file for last words.
fn own_files(
    unit: &Unit,
    parts: &Parts<'_>,
    pod_dir: &Path,
    mounts: &mut Vec<Mount>,
) -> Result<(), String> {
    let mut add = |source: &Path, target: &str| {
        if !mounts.iter().any(|mount| mount.target == target) {
            let source = source.display().to_string();
            let target = target.to_owned();
            mounts.push(Mount { source, target, ..Mount::default() });
        }
    };
    add(&pod_dir.join("etc-hosts"), "/etc/hosts");
    add(&pod_dir.join("resolv.conf"), "/etc/resolv.conf");
    let words = termination_file(pod_dir, unit.name(), parts.attempt);
    make_words(&words).map_err(|error| format!("cannot make {}: {error}", words.display()))?;
    let path = unit.spec.termination_message_path.as_deref().filter(|path| !path.is_empty());
    add(&words, path.unwrap_or(TERMINATION_LOG));
    Ok(())
}

/// An empty file that any user of the container may write.
fn make_words(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    std::fs::File::create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// Whether a container of this kind may be probed and hooked.
pub fn has_life(kind: Kind) -> bool {
    matches!(kind, Kind::Sidecar | Kind::Regular)
}
