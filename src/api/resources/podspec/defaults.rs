//! Defaults of a PodSpec (`pkg/apis/core/v1/defaults.go`).
//!
//! Why here and not in the schema table: most depend on other fields (the image's tag, a limit, the
//! host's network), and a Pod gets some that a template does not.

use serde_json::json;

use super::super::fill::{fill, list_mut, map_mut};
use crate::object::{Map, Value};

/// The mode of files in secret, configMap, downwardAPI and projected volumes: 0644.
const FILE_MODE: i64 = 0o644;

/// Defaults of any PodSpec, given as the value of `spec`.
pub(in super::super) fn spec(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    fill(map, "dnsPolicy", "ClusterFirst");
    fill(map, "restartPolicy", "Always");
    fill(map, "securityContext", json!({}));
    fill(map, "terminationGracePeriodSeconds", 30);
    fill(map, "schedulerName", "default-scheduler");
    service_account(map);
    for volume in list_mut(map, "volumes") {
        default_volume(volume);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list_mut(map, list) {
            if let Some(container) = container.as_object_mut() {
                default_container(container);
            }
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn service_account(spec: &mut Map) {
    let text = |name: &str| {
        spec.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    match text("serviceAccountName").or_else(|| text("serviceAccount")) {
        Some(name) => {
            spec.insert("serviceAccountName".to_owned(), name.clone().into());
            spec.insert("serviceAccount".to_owned(), name.into());
        }
        None => {
            spec.remove("serviceAccount");
        }
    }
}

/// Defaults that only a Pod gets, not a template.
pub(in super::super) fn pod_only(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    for list in ["containers", "initContainers"] {
        for container in list_mut(map, list) {
            requests_from_limits(container);
        }
    }
    super::resources::default_pod_level(map);
    fill(map, "enableServiceLinks", true);
    if map.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for container in list_mut(map, list) {
                host_ports(container);
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let Some(requests) = map_mut(resources, "requests") else { return };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn host_ports(container: &mut Value) {
    let Some(container) = container.as_object_mut() else { return };
    for port in list_mut(container, "ports") {
        let number = port.get("containerPort").cloned();
        if let (Some(port), Some(number)) = (port.as_object_mut(), number)
            && port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
        {
            port.insert("hostPort".to_owned(), number);
        }
    }
}

fn default_container(container: &mut Map) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let policy = if has_latest_tag(image) { "Always" } else { "IfNotPresent" };
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    for port in list_mut(container, "ports") {
        if let Some(port) = port.as_object_mut() {
            fill(port, "protocol", "TCP");
        }
    }
    for variable in list_mut(container, "env") {
        field_ref(variable.get_mut("valueFrom"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
            default_handler(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(hook).and_then(Value::as_object_mut) {
                default_handler(hook);
            }
        }
    }
}

fn default_handler(handler: &mut Map) {
    if let Some(http) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc").and_then(Value::as_object_mut) {
        grpc.entry("service").or_insert_with(|| "".into());
    }
}

/// Gives the `fieldRef` below `source` its API version.
fn field_ref(source: Option<&mut Value>) {
    let selector = source.and_then(|source| source.get_mut("fieldRef"));
    if let Some(selector) = selector.and_then(Value::as_object_mut) {
        fill(selector, "apiVersion", "v1");
    }
}

fn default_volume(volume: &mut Value) {
    let Some(volume) = volume.as_object_mut() else { return };
    if !volume.iter().any(|(name, value)| name != "name" && !value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for (source, value) in volume.iter_mut() {
        let Some(value) = value.as_object_mut() else { continue };
        match source.as_str() {
            "secret" | "configMap" => fill(value, "defaultMode", FILE_MODE),
            "downwardAPI" => {
                fill(value, "defaultMode", FILE_MODE);
                list_mut(value, "items").for_each(|item| field_ref(Some(item)));
            }
            "projected" => default_projected(value),
            "hostPath" => {
                value.entry("type").or_insert_with(|| "".into());
            }
            "image" => {
                let image = value.get("reference").and_then(Value::as_str).unwrap_or("");
                let policy = if has_latest_tag(image) { "Always" } else { "IfNotPresent" };
                fill(value, "pullPolicy", policy);
            }
            "ephemeral" => {
                let spec = value.get_mut("volumeClaimTemplate").and_then(|t| t.get_mut("spec"));
                if let Some(spec) = spec.and_then(Value::as_object_mut) {
                    fill(spec, "volumeMode", "Filesystem");
                }
            }
            "iscsi" => fill(value, "iscsiInterface", "default"),
            _ => {}
        }
    }
}

fn default_projected(projected: &mut Map) {
    fill(projected, "defaultMode", FILE_MODE);
    for source in list_mut(projected, "sources") {
        let Some(source) = source.as_object_mut() else { continue };
        if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
            fill(token, "expirationSeconds", 3600);
        }
        if let Some(downward) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
            list_mut(downward, "items").for_each(|item| field_ref(Some(item)));
        }
    }
}

/// Whether an image is pulled each time: its tag is "latest", or it has neither tag nor digest.
fn has_latest_tag(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !name.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("host:5000/nginx", true),
            ("host:5000/nginx:1.27", false),
            ("nginx@sha256:00", false),
            ("nginx:latest@sha256:00", true),
        ] {
            assert_eq!(has_latest_tag(image), latest, "{image}");
        }
    }

    #[test]
    fn a_bare_pod_gets_upstreams_defaults() {
        let mut value = json!({"hostNetwork": true, "containers": [{
            "name": "a", "image": "b",
            "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1"}},
        }], "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]});
        spec(&mut value);
        pod_only(&mut value);
        assert_eq!(
            value,
            json!({
                "hostNetwork": true,
                "containers": [{
                    "name": "a", "image": "b", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                }],
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
                ],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
                "enableServiceLinks": true,
            })
        );
        let once = value.clone();
        spec(&mut value);
        pod_only(&mut value);
        assert_eq!(value, once, "defaults must be idempotent");
    }
}
