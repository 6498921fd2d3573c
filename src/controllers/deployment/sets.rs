//! The ReplicaSets of a Deployment: which is the newest, its name, hash, revision and annotations.
//!
//! Why annotations: revision and history are what `kubectl rollout history` and `undo` read.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::scale::max_surge;
use crate::reconcile::Object;
use crate::stdx::ids;

/// The label that tells the pods of one template from those of another.
pub const HASH: &str = "pod-template-hash";
/// The annotation with the rollout's number.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation with the numbers that a set had before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The annotation with the Deployment's replicas when the set was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation with the most pods there could be when the set was last scaled.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Bytes of the revision history; the oldest revisions are cut.
const REVISION_HISTORY_BYTES_MAX: usize = 2000;
/// Annotations of a Deployment that its sets do not get.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// `spec.replicas` of a set.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a set.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH);
        if labels.is_empty() {
            metadata.labels = None;
        }
    }
    template
}

/// Whether a set has the Deployment's template, the hash label aside.
pub fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let theirs = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let ours = deployment.spec.as_ref().map(|spec| &spec.template);
    matches!((theirs, ours), (Some(a), Some(b)) if without_hash(a) == without_hash(b))
}

/// The set of the Deployment's template; the oldest where there are several.
pub fn newest<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a ReplicaSet> {
    let mut matching: Vec<&ReplicaSet> =
        sets.iter().map(|set| &**set).filter(|set| is_of_template(set, deployment)).collect();
    matching.sort_by(|a, b| by_age(a, b));
    matching.first().copied()
}

/// Oldest first, then by name.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let key = |set: &ReplicaSet| {
        (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.name().to_owned())
    };
    key(a).cmp(&key(b))
}

/// A set's revision; 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// FNV-1a over the template's JSON and the collision count, in the alphabet of names.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let collisions = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let hash = json
        .iter()
        .chain(&collisions)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    ids::safe_encode(&hash.to_string())
}

/// The set that a Deployment's present template needs, with no pods yet.
pub fn make(deployment: &Deployment, spec: &DeploymentSpec) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let stem: String = deployment.name().chars().take(253 - 1 - hash.len()).collect();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{stem}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![deployment.owner_reference()]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Writes annotations, revision and history of the newest set.
pub fn annotate_newest(deployment: &Deployment, set: &mut ReplicaSet, revision: i64, fresh: bool) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let number: i64 = match old.as_deref() {
        None | Some("") => 0,
        // A revision that is no number is somebody's own; it stays.
        Some(text) => text.parse().unwrap_or(i64::MAX),
    };
    if number < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
            let history = append_history(&history, &old);
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    if fresh {
        annotate_scale(deployment, set);
    }
}

fn append_history(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|it| !it.is_empty()).collect();
    all.push(revision);
    let mut joined = all.join(",");
    while joined.len() > REVISION_HISTORY_BYTES_MAX && all.len() > 1 {
        all.remove(0);
        joined = all.join(",");
    }
    joined
}

/// Writes what the set was scaled for; whether that is new.
pub fn annotate_scale(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let replicas = super::scale::replicas(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in
        [(DESIRED_REPLICAS, replicas), (MAX_REPLICAS, replicas + max_surge(deployment))]
    {
        let value = value.to_string();
        changed |= annotations.insert(key.to_owned(), value.clone()) != Some(value);
    }
    changed
}

/// A number in one of a set's annotations.
pub fn annotated_number(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.annotation(key)?.parse().ok().filter(|number| *number >= 0)
}
