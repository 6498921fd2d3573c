//! LimitRanger: a namespace's defaults and bounds for containers, pods and claims.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{Operation, Plugin, Request, list};
use crate::api::objects::SharedObjects;
use crate::object::quantity::Quantity;
use crate::object::status::Result;
use crate::object::{Value, meta};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plug-in.
pub(super) struct LimitRanger {
    objects: SharedObjects,
}

/// Quantities by resource name.
type Amounts = BTreeMap<String, Quantity>;

impl LimitRanger {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    /// The items of all limit ranges of the request's namespace.
    fn items(&self, request: &Request) -> Vec<Value> {
        let namespace = &request.attributes.namespace;
        if namespace.is_empty() {
            return Vec::new();
        }
        let ranges = self.objects.list("limitranges", "", namespace);
        ranges.iter().flat_map(|range| list(range, &["spec", "limits"]).to_vec()).collect()
    }
}

/// Whether limit ranges concern the request.
fn concerns(request: &Request) -> bool {
    let is_ending = request.old.as_deref().is_some_and(meta::is_deleting);
    let is_write = match request.operation {
        Operation::Create => request.is("", "pods") || request.is("", "persistentvolumeclaims"),
        Operation::Update => {
            request.is("", "persistentvolumeclaims") || request.is_sub("", "pods", "resize")
        }
        _ => false,
    };
    is_write && !is_ending
}

fn amounts(object: &Value, path: &[&str]) -> Amounts {
    let map = meta::at(object, path).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, value)| {
        // A number is a quantity too, though canonical objects hold text.
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((name.clone(), Quantity::parse(&text).ok()?))
    })
    .collect()
}

/// Adds a container's missing requests and limits; tells which.
fn complete(container: &mut Value, defaults: [(&str, &Value); 2], kind: &str) -> Vec<String> {
    let name = meta::text(container, &["name"]).to_owned();
    let mut texts = Vec::new();
    for (field, values) in defaults {
        let mut set = BTreeSet::new();
        for (resource, value) in values.as_object().into_iter().flatten() {
            let path = ["resources", field, resource];
            if meta::at(container, &path).is_none() {
                meta::set(container, &path, value.clone());
                set.insert(resource.as_str());
            }
        }
        if !set.is_empty() {
            let set = set.into_iter().collect::<Vec<_>>().join(", ");
            texts.push(format!("{set} {} for {kind} {name}", field.trim_end_matches('s')));
        }
    }
    texts
}

fn complete_pod(pod: &mut Value, items: &[Value]) {
    let mut defaults = [Value::Null, Value::Null];
    for item in items.iter().filter(|item| item["type"] == "Container") {
        for (into, field) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            for (name, value) in item.get(field).and_then(Value::as_object).into_iter().flatten() {
                meta::set(into, &[name], value.clone());
            }
        }
    }
    let [requests, limits] = &defaults;
    let mut texts = Vec::new();
    for (field, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(field));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let defaults = [("requests", requests), ("limits", limits)];
            texts.extend(complete(container, defaults, kind));
        }
    }
    if !texts.is_empty() {
        let text = format!("LimitRanger plugin set: {}", texts.join("; "));
        meta::set(pod, &["metadata", "annotations", ANNOTATION], text);
    }
}

/// One thing that is measured.
struct Usage<'a> {
    kind: &'a str,
    requests: Amounts,
    limits: Amounts,
}

impl Usage<'_> {
    fn check(&self, item: &Value, errors: &mut Vec<String>) {
        let kind = self.kind;
        let is_claim = kind == "PersistentVolumeClaim";
        for (name, least) in amounts(item, &["min"]) {
            let (request, limit) = (self.requests.get(&name), self.limits.get(&name));
            let head = format!("minimum {name} usage per {kind} is {least}");
            match (request, limit) {
                (None, _) => errors.push(format!("{head}.  No request is specified")),
                (Some(request), _) if *request < least => {
                    errors.push(format!("{head}, but request is {request}"));
                }
                (_, Some(limit)) if *limit < least => {
                    errors.push(format!("{head}, but limit is {limit}"));
                }
                _ => {}
            }
        }
        for (name, most) in amounts(item, &["max"]) {
            let (request, limit) = (self.requests.get(&name), self.limits.get(&name));
            let head = format!("maximum {name} usage per {kind} is {most}");
            match (request, limit) {
                (None, _) if is_claim => errors.push(format!("{head}.  No request is specified")),
                (_, None) if !is_claim => errors.push(format!("{head}.  No limit is specified")),
                (_, Some(limit)) if *limit > most => {
                    errors.push(format!("{head}, but limit is {limit}"));
                }
                (Some(request), _) if *request > most => {
                    errors.push(format!("{head}, but request is {request}"));
                }
                _ => {}
            }
        }
        if !is_claim {
            self.check_ratio(item, errors);
        }
    }

    fn check_ratio(&self, item: &Value, errors: &mut Vec<String>) {
        for (name, most) in amounts(item, &["maxLimitRequestRatio"]) {
            let head = format!("{name} max limit to request ratio per {} is {most}", self.kind);
            let given = |amounts: &Amounts| {
                amounts.get(&name).filter(|amount| !amount.is_zero()).map(Quantity::as_f64)
            };
            match (given(&self.requests), given(&self.limits)) {
                (None, _) => {
                    errors.push(format!("{head}, but no request is specified or request is 0"))
                }
                (_, None) => {
                    errors.push(format!("{head}, but no limit is specified or limit is 0"));
                }
                (Some(request), Some(limit)) if limit / request > most.as_f64() => {
                    errors.push(format!("{head}, but provided ratio is {:.6}", limit / request));
                }
                _ => {}
            }
        }
    }
}

/// What a whole pod asks for: the sum of its containers, or the most that its start needs.
fn of_pod(pod: &Value, field: &str) -> Amounts {
    let add = |into: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let sum = into.get(name).map_or(*amount, |own| own.plus(amount));
            into.insert(name.clone(), sum);
        }
    };
    let raise = |into: &mut Amounts, other: &Amounts| {
        for (name, amount) in other {
            if into.get(name).is_none_or(|own| own < amount) {
                into.insert(name.clone(), *amount);
            }
        }
    };
    let mut sum = Amounts::new();
    for container in list(pod, &["spec", "containers"]) {
        add(&mut sum, &amounts(container, &["resources", field]));
    }
    let (mut sidecars, mut start) = (Amounts::new(), Amounts::new());
    for container in list(pod, &["spec", "initContainers"]) {
        let own = amounts(container, &["resources", field]);
        if meta::text(container, &["restartPolicy"]) == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut start, &sidecars);
        } else {
            let mut beside = own;
            add(&mut beside, &sidecars);
            raise(&mut start, &beside);
        }
    }
    raise(&mut sum, &start);
    for (name, amount) in amounts(pod, &["spec", "resources", field]) {
        if name == "cpu" || name == "memory" {
            sum.insert(name, amount);
        }
    }
    sum
}

fn check(object: &Value, is_claim: bool, items: &[Value]) -> Vec<String> {
    let mut errors = Vec::new();
    for item in items {
        let kind = meta::text(item, &["type"]);
        let usage = |object: &Value, path: &[&str]| {
            let at = |field: &'static str| {
                let mut path = path.to_vec();
                path.push(field);
                amounts(object, &path)
            };
            Usage { kind, requests: at("requests"), limits: at("limits") }
        };
        match kind {
            "PersistentVolumeClaim" if is_claim => {
                let requests = amounts(object, &["spec", "resources", "requests"]);
                Usage { kind, requests, limits: Amounts::new() }.check(item, &mut errors);
            }
            "Container" if !is_claim => {
                let all = list(object, &["spec", "containers"])
                    .iter()
                    .chain(list(object, &["spec", "initContainers"]));
                for container in all {
                    usage(container, &["resources"]).check(item, &mut errors);
                }
            }
            "Pod" if !is_claim => {
                let (requests, limits) = (of_pod(object, "requests"), of_pod(object, "limits"));
                Usage { kind, requests, limits }.check(item, &mut errors);
            }
            _ => {}
        }
    }
    errors
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        if !concerns(request) || !request.is("", "pods") {
            return Ok(());
        }
        let items = self.items(request);
        if let Some(pod) = &mut request.object {
            complete_pod(pod, &items);
        }
        Ok(())
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let Some(object) = request.object.as_ref().filter(|_| concerns(request)) else {
            return Ok(());
        };
        let is_claim = request.is("", "persistentvolumeclaims");
        let mut errors = check(object, is_claim, &self.items(request));
        let mut seen = BTreeSet::new();
        errors.retain(|error| seen.insert(error.clone()));
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(request.forbidden(one)),
            many => Err(request.forbidden(format!("[{}]", many.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;
    use crate::api::objects::MemoryObjects;
    use serde_json::json;
    use std::sync::Arc;

    fn plugin(limits: Value) -> LimitRanger {
        let range = json!({"metadata": {"namespace": "ns", "name": "l"},
            "spec": {"limits": limits}});
        LimitRanger::new(Arc::new(MemoryObjects::with([("limitranges", "", range)])))
    }

    async fn run(plugin: &LimitRanger, resource: &str, spec: Value) -> Result<Value> {
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        let mut request = request(resource, "", "ns", object);
        plugin.admit(&mut request).await?;
        plugin.validate(&request).await?;
        Ok(request.object.unwrap_or_default())
    }

    #[tokio::test]
    async fn what_a_container_does_not_say_is_filled_in_and_told() {
        let plugin = plugin(json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}]));
        let spec = json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]});
        let pod = run(&plugin, "pods", spec).await.unwrap();
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }

    #[tokio::test]
    async fn bounds_are_held_in_upstreams_words() {
        let plugin = plugin(json!([
            {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"},
                "maxLimitRequestRatio": {"cpu": "2"}},
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}},
        ]));
        let pod = |request: &str, limit: &str, memory: &str| {
            json!({"containers": [{"name": "c", "resources":
                {"requests": {"cpu": request, "memory": memory},
                "limits": {"cpu": limit, "memory": memory}}}]})
        };
        for (spec, refusal) in [
            (pod("500m", "1", "1Gi"), None),
            (
                pod("50m", "100m", "1Gi"),
                Some("minimum cpu usage per Container is 100m, but request is 50m"),
            ),
            (pod("1", "2", "1Gi"), Some("maximum cpu usage per Container is 1, but limit is 2")),
            (
                pod("200m", "1", "1Gi"),
                Some(
                    "cpu max limit to request ratio per Container is 2, but provided ratio is \
                      5.000000",
                ),
            ),
            (
                pod("500m", "1", "2Gi"),
                Some("maximum memory usage per Pod is 1Gi, but limit is 2Gi"),
            ),
        ] {
            let result = run(&plugin, "pods", spec).await;
            match refusal {
                None => assert!(result.is_ok(), "{result:?}"),
                Some(text) => {
                    let status = result.unwrap_err();
                    let text = format!("pods \"x\" is forbidden: {text}");
                    assert_eq!(status.message, text);
                }
            }
        }
        let claim = |storage: &str| json!({"resources": {"requests": {"storage": storage}}});
        assert!(run(&plugin, "persistentvolumeclaims", claim("1Gi")).await.is_ok());
        let status = run(&plugin, "persistentvolumeclaims", claim("11Gi")).await.unwrap_err();
        assert!(status.message.ends_with(
            "maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 11Gi"
        ));
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_for_its_start() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {"containers": [container("1"), container("2")],
            "initContainers": [sidecar, container("5")]}});
        assert_eq!(of_pod(&pod, "requests")["cpu"], Quantity::from_units(6));
    }
}
