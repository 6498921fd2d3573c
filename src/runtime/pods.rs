//! A pod as the node reads it: its containers in one list, their kinds, and what restarts.
//!
//! Why a model beside the typed pod: init containers, sidecars, containers and ephemeral containers
//! differ in few ways; those ways are said here once instead of in each loop.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::client::node::PodRef;
use crate::reconcile::Object;

/// What becomes of a container when it ends, and what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays: it runs beside the containers and ends after them.
    Sidecar,
    /// A container of the pod.
    Regular,
    /// Added to a running pod for a look inside; never restarted.
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its kind.
    pub kind: Kind,
    /// Its spec; an ephemeral one's, too.
    pub spec: core::Container,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<String>,
}

impl Unit {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Where events about it point.
    pub fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::Regular => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }

    /// What tells whether a running container still is what the spec wants: name and image, as
    /// upstream.
    pub fn hash(&self) -> String {
        let image = self.spec.image.as_deref().unwrap_or("");
        format!("{:08x}", crc32fast::hash(format!("{}\n{image}", self.name()).as_bytes()))
    }
}

/// A pod and its containers.
#[derive(Clone, Debug)]
pub struct Model {
    /// The object.
    pub pod: Arc<core::Pod>,
    /// Init containers and sidecars in their order, then containers, then ephemeral ones.
    pub units: Vec<Unit>,
}

impl Model {
    /// Reads a pod.
    pub fn new(pod: Arc<core::Pod>) -> Self {
        let mut units = Vec::new();
        if let Some(spec) = &pod.spec {
            for container in spec.init_containers.iter().flatten() {
                let stays = container.restart_policy.as_deref() == Some("Always");
                let kind = if stays { Kind::Sidecar } else { Kind::Init };
                units.push(Unit { kind, spec: container.clone(), target: None });
            }
            let regular = |container: &core::Container| Unit {
                kind: Kind::Regular,
                spec: container.clone(),
                target: None,
            };
            units.extend(spec.containers.iter().map(regular));
            units.extend(spec.ephemeral_containers.iter().flatten().filter_map(ephemeral));
        }
        Self { pod, units }
    }

    /// Namespace, name and uid.
    pub fn reference(&self) -> PodRef {
        PodRef {
            namespace: self.pod.namespace().to_owned(),
            name: self.pod.name().to_owned(),
            uid: self.pod.uid().to_owned(),
        }
    }

    /// "name_namespace(uid)", as upstream's messages name a pod.
    pub fn long_name(&self) -> String {
        let pod = &self.pod;
        format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
    }

    /// The spec; the API server stores no pod without one.
    pub fn spec(&self) -> &core::PodSpec {
        static EMPTY: std::sync::LazyLock<core::PodSpec> =
            std::sync::LazyLock::new(core::PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// A container by name.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.name() == name)
    }

    /// Containers of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter(move |unit| unit.kind == kind)
    }

    /// Whether the pod uses the host's network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    /// `spec.restartPolicy`.
    pub fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// Whether the container starts again after ending with `code`.
    pub fn restarts(&self, unit: &Unit, code: i32) -> bool {
        match unit.kind {
            Kind::Ephemeral => return false,
            Kind::Sidecar => return true,
            Kind::Init | Kind::Regular => {}
        }
        let policy = match &unit.spec.restart_policy {
            Some(own) => {
                for rule in unit.spec.restart_policy_rules.iter().flatten() {
                    if rule.action == "Restart" && rule_matches(rule, code) {
                        return true;
                    }
                }
                own.as_str()
            }
            None => self.restart_policy(),
        };
        match policy {
            "Never" => false,
            "OnFailure" => code != 0,
            // A finished init container is never run again.
            _ => unit.kind == Kind::Regular || code != 0,
        }
    }

    /// The seconds that containers get to end by themselves.
    pub fn grace_seconds(&self) -> i64 {
        let metadata = &self.pod.metadata;
        metadata
            .deletion_timestamp
            .as_ref()
            .and(metadata.deletion_grace_period_seconds)
            .or(self.spec().termination_grace_period_seconds)
            .unwrap_or(30)
    }

    /// The status that the API server had of a container.
    pub fn old_status(&self, name: &str) -> Option<&core::ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
    }

    /// The pod's phase in the API is Succeeded or Failed.
    pub fn is_terminal(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

fn rule_matches(rule: &core::ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.as_ref().is_some_and(|values| values.contains(&code));
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// An ephemeral container has a container's fields and a target.
fn ephemeral(container: &core::EphemeralContainer) -> Option<Unit> {
    let value: Value = serde_json::to_value(container).ok()?;
    let spec = serde_json::from_value(value).ok()?;
    let target = container.target_container_name.clone().filter(|name| !name.is_empty());
    Some(Unit { kind: Kind::Ephemeral, spec, target })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A pod "web" with this spec.
    pub(in crate::runtime) fn model(spec: Value) -> Model {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u-1"},
            "spec": spec,
        });
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn restart_rules_come_before_the_containers_policy_and_that_before_the_pods() {
        let model = model(json!({
            "restartPolicy": "Never",
            "initContainers": [
                {"name": "i"}, {"name": "s", "restartPolicy": "Always"},
            ],
            "containers": [
                {"name": "plain"},
                {"name": "own", "restartPolicy": "OnFailure"},
                {"name": "rules", "restartPolicy": "Never", "restartPolicyRules": [
                    {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
            ],
            "ephemeralContainers": [{"name": "look", "targetContainerName": "own"}],
        }));
        let restarts = |name: &str, code| model.restarts(model.unit(name).unwrap(), code);
        assert!(!restarts("i", 1) && restarts("s", 0) && !restarts("plain", 1));
        assert!(restarts("own", 1) && !restarts("own", 0));
        assert!(restarts("rules", 42) && !restarts("rules", 1));
        assert!(!restarts("look", 1));
        assert_eq!(model.unit("look").unwrap().target.as_deref(), Some("own"));
        assert_eq!(model.unit("s").unwrap().field_path(), "spec.initContainers{s}");
    }
}
