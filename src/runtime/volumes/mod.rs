//! Volumes: what each kind becomes on the host, in a table of kinds.
//!
//! Why content apart from placing: which files a configMap, secret, projected or downward volume
//! shows is a pure function (`content`), how they appear at once is one writer (`atomic`), and what
//! needs the kernel (`host`: tmpfs, host paths, subpaths) is apart from both.

pub mod atomic;
pub mod content;
pub mod host;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::env::Snapshot;
use super::pods::Model;

/// The prepared volumes of a pod, by name.
pub type Volumes = BTreeMap<String, PathBuf>;

/// Why a volume could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
pub struct VolumeError {
    /// Its name.
    pub volume: String,
    /// In upstream's words where upstream has some.
    pub reason: String,
}

/// A token for a projected volume, by volume and path.
pub type Tokens = BTreeMap<(String, String), String>;

/// The folder of a volume below the pod's own folder, named as upstream names its plug-ins.
fn folder(pod_dir: &Path, volume: &core::Volume) -> PathBuf {
    let plugin = if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~empty-dir"
    };
    pod_dir.join("volumes").join(plugin).join(&volume.name)
}

/// Prepares or refreshes all volumes of a pod. It blocks on the disk; nothing of what is there and
/// right is touched, so it can be called again at any time.
pub fn prepare(
    pod_dir: &Path,
    model: &Model,
    snapshot: &Snapshot,
    tokens: &Tokens,
) -> Result<Volumes, VolumeError> {
    let mut volumes = Volumes::new();
    for volume in model.spec().volumes.iter().flatten() {
        let fail = |reason: String| VolumeError { volume: volume.name.clone(), reason };
        let path = prepare_one(pod_dir, model, volume, snapshot, tokens).map_err(fail)?;
        volumes.insert(volume.name.clone(), path);
    }
    Ok(volumes)
}

fn prepare_one(
    pod_dir: &Path,
    model: &Model,
    volume: &core::Volume,
    snapshot: &Snapshot,
    tokens: &Tokens,
) -> Result<PathBuf, String> {
    if let Some(source) = &volume.host_path {
        return host::host_path(source);
    }
    let path = folder(pod_dir, volume);
    let group = model.spec().security_context.as_ref().and_then(|context| context.fs_group);
    if let Some(source) = &volume.empty_dir {
        host::empty_dir(&path, source, group)?;
        return Ok(path);
    }
    let files = content::files(model, volume, snapshot, tokens)?;
    let owner = atomic::Owner { user: content::token_user(model), group };
    atomic::write(&path, &files, &owner).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Gives back everything of a pod on this host: mounts below its folder, then the folder.
pub fn clean(pod_dir: &Path) -> std::io::Result<()> {
    host::unmount_below(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
