//! A container's environment: from where each variable comes, and `$(VAR)` references.
//!
//! Why over a snapshot: the order in which sources win and which error names which key is easy to
//! get wrong and easy to test, once no lookup can wait or fail in between.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::pods::{Model, Unit};
use super::resources;
use crate::object::quantity::Quantity;
use crate::reconcile::Object;

/// What a downward reference may show of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// What pods may use in all, by resource name.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Everything that an environment is made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The ConfigMaps that the pod names and that exist.
    pub config_maps: BTreeMap<String, Arc<core::ConfigMap>>,
    /// The Secrets that the pod names and that exist.
    pub secrets: BTreeMap<String, Arc<core::Secret>>,
    /// All Services.
    pub services: Vec<Arc<core::Service>>,
    /// The node.
    pub node: NodeFacts,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// A container's variables in a stable order, or why they can't be had (upstream's words).
pub fn environment(
    model: &Model,
    unit: &Unit,
    snapshot: &Snapshot,
) -> Result<BTreeMap<String, String>, String> {
    let services = service_variables(model, snapshot);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for source in unit.spec.env_from.iter().flatten() {
        from_source(source, snapshot, &mut known)?;
    }
    for variable in unit.spec.env.iter().flatten() {
        let literal = variable.value.as_deref().unwrap_or("");
        let value = match &variable.value_from {
            Some(from) if literal.is_empty() => {
                match from_reference(model, unit, from, snapshot)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            _ => expand(literal, |name| known.get(name).or_else(|| services.get(name)).cloned()),
        };
        known.insert(variable.name.clone(), value);
    }
    for (name, value) in services {
        known.entry(name).or_insert(value);
    }
    Ok(known)
}

fn missing(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

fn from_source(
    source: &core::EnvFromSource,
    snapshot: &Snapshot,
    known: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or("");
    if let Some(reference) = &source.config_map_ref {
        let Some(map) = snapshot.config_maps.get(&reference.name) else {
            return match reference.optional {
                Some(true) => Ok(()),
                _ => Err(missing("configmap", &reference.name)),
            };
        };
        for (key, value) in map.data.iter().flatten() {
            known.insert(format!("{prefix}{key}"), value.clone());
        }
    }
    if let Some(reference) = &source.secret_ref {
        let Some(secret) = snapshot.secrets.get(&reference.name) else {
            return match reference.optional {
                Some(true) => Ok(()),
                _ => Err(missing("secret", &reference.name)),
            };
        };
        for (key, value) in secret.data.iter().flatten() {
            let value = String::from_utf8_lossy(&value.0).into_owned();
            known.insert(format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}

/// The value behind a reference; `None` when it may be missing and is.
fn from_reference(
    model: &Model,
    unit: &Unit,
    from: &core::EnvVarSource,
    snapshot: &Snapshot,
) -> Result<Option<String>, String> {
    let namespace = model.pod.namespace();
    if let Some(field) = &from.field_ref {
        return pod_field(model, &field.field_path, snapshot).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        return resource_field(model, unit, field, &snapshot.node).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        let Some(map) = snapshot.config_maps.get(name) else {
            return if optional { Ok(None) } else { Err(missing("configmap", name)) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(key)).cloned();
        return match value {
            None if !optional => {
                Err(format!("couldn't find key {key} in ConfigMap {namespace}/{name}"))
            }
            value => Ok(value),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        let Some(secret) = snapshot.secrets.get(name) else {
            return if optional { Ok(None) } else { Err(missing("secret", name)) };
        };
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        return match value.map(|value| String::from_utf8_lossy(&value.0).into_owned()) {
            None if !optional => {
                Err(format!("couldn't find key {key} in Secret {namespace}/{name}"))
            }
            value => Ok(value),
        };
    }
    Err("the source of a variable is not supported by this node".to_owned())
}

/// A field of the pod as the downward API shows it.
pub fn pod_field(model: &Model, path: &str, snapshot: &Snapshot) -> Result<String, String> {
    let pod = &model.pod;
    let map_key = |list: &str| {
        let inner = path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(inner.to_owned())
    };
    if let Some(key) = map_key("metadata.labels") {
        return Ok(pod.label(&key).unwrap_or("").to_owned());
    }
    if let Some(key) = map_key("metadata.annotations") {
        return Ok(pod.annotation(&key).unwrap_or("").to_owned());
    }
    let own: Vec<String> = match model.host_network() {
        true => vec![snapshot.node.ip.clone()],
        false => snapshot.addresses.iter().map(ToString::to_string).collect(),
    };
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => snapshot.node.name.clone(),
        "spec.serviceAccountName" => model.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => snapshot.node.ip.clone(),
        "status.podIP" => own.first().cloned().unwrap_or_default(),
        "status.podIPs" => own.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// Go's `%q` for what labels and annotations may hold.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            other if other.is_control() => out.push_str(&format!("\\x{:02x}", other as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A container's request or limit; a missing limit is what the node can give.
pub fn resource_field(
    model: &Model,
    unit: &Unit,
    field: &core::ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, String> {
    let unit = match field.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => model.unit(name).ok_or_else(|| format!("container {name} not found"))?,
        None => unit,
    };
    let Some((list, name)) = field.resource.split_once('.') else {
        return Err(format!("unsupported container resource : {}", field.resource));
    };
    let resources = unit.spec.resources.as_ref();
    let found = match list {
        "limits" => resources::quantity(resources.and_then(|all| all.limits.as_ref()), name)
            .or_else(|| node.allocatable.get(name).copied()),
        "requests" => resources::quantity(resources.and_then(|all| all.requests.as_ref()), name),
        _ => return Err(format!("unsupported container resource : {}", field.resource)),
    };
    let value = found.unwrap_or(Quantity::ZERO);
    let divisor = field.divisor.as_ref().and_then(|text| Quantity::parse(&text.0).ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero());
    Ok(match name {
        "cpu" => {
            let by = divisor.map_or(1000, |divisor| divisor.millis());
            ceiling(value.millis(), by)
        }
        _ => ceiling(value.units(), divisor.map_or(1, |divisor| divisor.units())),
    })
}

fn ceiling(value: i64, by: i64) -> String {
    (i128::from(value) + i128::from(by) - 1).div_euclid(i128::from(by.max(1))).to_string()
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar; an unknown name stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that name Services, as Docker links did.
fn service_variables(model: &Model, snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let links = model.spec().enable_service_links.unwrap_or(true);
    let namespace = model.pod.namespace();
    let is_master = |service: &core::Service| {
        service.namespace() == "default" && service.name() == "kubernetes"
    };
    // The API server's own service comes last: it wins over one of the same name.
    let own = snapshot
        .services
        .iter()
        .filter(|service| links && service.namespace() == namespace && !is_master(service));
    let master = snapshot.services.iter().filter(|service| is_master(service));
    for service in own.chain(master) {
        let Some(spec) = &service.spec else { continue };
        let address = spec.cluster_ip.as_deref().unwrap_or("");
        if address.is_empty() || address == "None" {
            continue;
        }
        add_service(service.name(), address, spec, &mut variables);
    }
    variables
}

fn variable_name(text: &str) -> String {
    text.replace('-', "_").to_uppercase()
}

fn add_service(
    name: &str,
    address: &str,
    spec: &core::ServiceSpec,
    variables: &mut BTreeMap<String, String>,
) {
    let name = variable_name(name);
    let host = match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut set = |suffix: String, value: String| {
        variables.insert(format!("{name}_{suffix}"), value);
    };
    set("SERVICE_HOST".to_owned(), address.to_owned());
    if let Some(first) = ports.first() {
        set("SERVICE_PORT".to_owned(), first.port.to_string());
    }
    for (position, port) in ports.iter().enumerate() {
        if let Some(label) = port.name.as_deref().filter(|label| !label.is_empty()) {
            set(format!("SERVICE_PORT_{}", variable_name(label)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if position == 0 {
            set("PORT".to_owned(), url.clone());
        }
        let prefix = format!("PORT_{}_{}", port.port, protocol.to_uppercase());
        set(prefix.clone(), url);
        set(format!("{prefix}_PROTO"), protocol.to_lowercase());
        set(format!("{prefix}_PORT"), port.port.to_string());
        set(format!("{prefix}_ADDR"), address.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::json;

    fn snapshot() -> Snapshot {
        let service = json!({"metadata": {"name": "my-db", "namespace": "default"}, "spec": {
            "clusterIP": "10.43.0.7", "ports": [{"name": "sql-a", "port": 5432}]}});
        let map = json!({"metadata": {"name": "m"}, "data": {"one": "1", "k.e-y": "v"}});
        Snapshot {
            config_maps: [("m".to_owned(), Arc::new(serde_json::from_value(map).unwrap()))].into(),
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            node: NodeFacts {
                name: "n1".into(),
                ip: "192.0.2.1".into(),
                allocatable: [("cpu".to_owned(), Quantity::from_millis(1500))].into(),
            },
            addresses: vec!["10.42.0.5".parse().unwrap()],
            ..Snapshot::default()
        }
    }

    fn variables(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let model = model(json!({"containers": [container]}));
        environment(&model, &model.units[0], &snapshot())
    }

    #[test]
    fn later_sources_win_and_references_see_what_came_before() {
        let found = variables(json!({"name": "a",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [
            {"name": "P_one", "value": "own"},
            {"name": "ALL", "value": "$(P_one) $$(P_one) $(MY_DB_SERVICE_HOST) $(none) $"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MAY", "valueFrom": {"configMapKeyRef": {
                "name": "m", "key": "no", "optional": true}}},
        ]}))
        .unwrap();
        assert_eq!(found["ALL"], "own $(P_one) 10.43.0.7 $(none) $");
        assert_eq!(found["P_k.e-y"], "v");
        assert_eq!(found["IP"], "10.42.0.5");
        assert_eq!(found["CPU"], "2");
        assert!(!found.contains_key("MAY"));
        assert_eq!(found["MY_DB_SERVICE_PORT_SQL_A"], "5432");
        assert_eq!(found["MY_DB_PORT_5432_TCP"], "tcp://10.43.0.7:5432");
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "x"}}});
        let error = variables(json!({"name": "a", "env": [key]})).unwrap_err();
        assert_eq!(error, "couldn't find key x in ConfigMap default/m");
        let from = json!({"secretRef": {"name": "s"}});
        let error = variables(json!({"name": "a", "envFrom": [from]})).unwrap_err();
        assert_eq!(error, "secret \"s\" not found");
    }

    #[test]
    fn labels_are_listed_with_quoted_values() {
        let map = [("a".to_owned(), "x\"y\n".to_owned()), ("b".to_owned(), "z".to_owned())].into();
        assert_eq!(format_map(Some(&map)), "a=\"x\\\"y\\n\"\nb=\"z\"");
    }
}
