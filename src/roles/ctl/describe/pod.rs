//! A pod, and a pod template.
//!
//! Why one file: both show containers and volumes, once with their state and once without.

use super::page::{Page, items, number, or_none, plain, text, texts, when};
use crate::object::{Value, meta};

/// A pod.
pub fn describe(pod: &Value) -> Page {
    let mut page = Page::default();
    heading(&mut page, pod);
    containers(&mut page, pod, "Init Containers", "initContainers", "initContainerStatuses", 0);
    containers(&mut page, pod, "Containers", "containers", "containerStatuses", 0);
    let ephemeral = ["ephemeralContainers", "ephemeralContainerStatuses"];
    containers(&mut page, pod, "Ephemeral Containers", ephemeral[0], ephemeral[1], 0);
    let conditions: Vec<&Value> = items(pod, &["status", "conditions"]).collect();
    let gates: Vec<&str> =
        items(pod, &["spec", "readinessGates"]).map(|gate| text(gate, "conditionType")).collect();
    if !gates.is_empty() {
        page.put(0, "Readiness Gates:\n  Type\tStatus");
        for gate in gates {
            let found = conditions.iter().find(|one| text(one, "type") == gate);
            let status = found.map_or("<none>", |one| text(one, "status"));
            page.put(1, &format!("{gate} \t{status} "));
        }
    }
    if !conditions.is_empty() {
        page.put(0, "Conditions:\n  Type\tStatus");
        for one in conditions {
            page.put(1, &format!("{} \t{} ", text(one, "type"), text(one, "status")));
        }
    }
    volumes(&mut page, &pod["spec"], 0);
    page.field(0, "QoS Class", meta::text(pod, &["status", "qosClass"]));
    placing(&mut page, &pod["spec"], "");
    page
}

fn heading(page: &mut Page, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    page.field(0, "Name", meta::name(pod));
    page.field(0, "Namespace", meta::namespace(pod));
    page.given(0, "Priority", &plain(&spec["priority"]));
    page.given(0, "Priority Class Name", text(spec, "priorityClassName"));
    page.given(0, "Runtime Class Name", text(spec, "runtimeClassName"));
    page.given(0, "Service Account", text(spec, "serviceAccountName"));
    match text(spec, "nodeName") {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(0, "Node", format!("{node}/{}", text(status, "hostIP"))),
    }
    if !text(status, "startTime").is_empty() {
        page.field(0, "Start Time", when(text(status, "startTime")));
    }
    page.pairs("Labels", meta::at(pod, &["metadata", "labels"]), "=");
    page.annotations(meta::at(pod, &["metadata", "annotations"]));
    let phase = text(status, "phase");
    if meta::is_deleting(pod) && !["Failed", "Succeeded"].contains(&phase) {
        let since = super::since(meta::text(pod, &["metadata", "deletionTimestamp"]));
        page.field(0, "Status", format!("Terminating (lasts {since})"));
        let grace = number(pod, &["metadata", "deletionGracePeriodSeconds"]);
        page.field(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        page.field(0, "Status", phase);
    }
    page.given(0, "Reason", text(status, "reason"));
    page.given(0, "Message", text(status, "message"));
    page.given(
        0,
        "SeccompProfile",
        meta::text(spec, &["securityContext", "seccompProfile", "type"]),
    );
    page.field(0, "IP", text(status, "podIP"));
    let ips: Vec<&str> = items(status, &["podIPs"]).map(|ip| text(ip, "ip")).collect();
    match ips.is_empty() {
        true => page.field(0, "IPs", "<none>"),
        false => {
            page.put(0, "IPs:");
            ips.iter().for_each(|ip| page.field(1, "IP", ip));
        }
    }
    if let Some(owner) = meta::controller_of(pod) {
        page.field(0, "Controlled By", format!("{}/{}", text(owner, "kind"), text(owner, "name")));
    }
    page.given(0, "NominatedNodeName", text(status, "nominatedNodeName"));
}

/// A pod template, as a revision of a rollout.
pub fn template(template: &Value) -> String {
    let mut page = Page::default();
    put_template(&mut page, template);
    page.text()
}

/// A pod template.
pub fn put_template(page: &mut Page, template: &Value) {
    page.put(0, "Pod Template:");
    page.pairs("  Labels", meta::at(template, &["metadata", "labels"]), "=");
    let annotations = meta::at(template, &["metadata", "annotations"]);
    if annotations.is_some() {
        page.pairs("  Annotations", annotations, ": ");
    }
    page.given(1, "Service Account", meta::text(template, &["spec", "serviceAccountName"]));
    containers(page, template, "Init Containers", "initContainers", "", 1);
    containers(page, template, "Containers", "containers", "", 1);
    volumes(page, &template["spec"], 1);
    page.given(1, "Priority Class Name", meta::text(template, &["spec", "priorityClassName"]));
    placing(page, &template["spec"], "  ");
}

/// Where a pod may go.
fn placing(page: &mut Page, spec: &Value, indent: &str) {
    page.pairs(&format!("{indent}Node-Selectors"), spec.get("nodeSelector"), "=");
    let mut tolerations: Vec<&Value> = items(spec, &["tolerations"]).collect();
    tolerations.sort_by_key(|one| text(one, "key"));
    let lines: Vec<String> = tolerations.into_iter().map(toleration).collect();
    page.many(&format!("{indent}Tolerations"), &lines);
}

fn toleration(one: &Value) -> String {
    let mut line = text(one, "key").to_owned();
    for (before, field) in [("=", "value"), (":", "effect")] {
        if !text(one, field).is_empty() {
            line.push_str(before);
            line.push_str(text(one, field));
        }
    }
    if text(one, "operator") == "Exists" {
        line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = one.get("tolerationSeconds").and_then(Value::as_i64) {
        line.push_str(&format!(" for {seconds}s"));
    }
    line
}

/// A list of containers, with their state where `statuses` names a list of it.
fn containers(page: &mut Page, of: &Value, title: &str, list: &str, statuses: &str, level: usize) {
    let all: Vec<&Value> = items(of, &["spec", list]).collect();
    if all.is_empty() {
        return;
    }
    let (indent, name_indent) = if level == 0 { ("", "") } else { ("  ", " ") };
    page.put(0, &format!("{indent}{title}:"));
    for container in all {
        let state = items(of, &["status", statuses])
            .find(|state| text(state, "name") == text(container, "name"));
        page.put(1, &format!("{name_indent}{}:", text(container, "name")));
        basics(page, container, state);
        for (title, field) in [("Command", "command"), ("Args", "args")] {
            let words = texts(container, &[field]);
            if !words.is_empty() {
                page.put(2, &format!("{title}:"));
                words.iter().flat_map(|word| word.split('\n')).for_each(|line| page.put(3, line));
            }
        }
        if let Some(state) = state {
            put_state(page, "State", &state["state"]);
            if state["lastState"].get("terminated").is_some() {
                put_state(page, "Last State", &state["lastState"]);
            }
            let ready = state["ready"].as_bool().unwrap_or(false);
            page.field(2, "Ready", if ready { "True" } else { "False" });
            page.field(2, "Restart Count", number(state, &["restartCount"]));
        }
        for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
            let amounts = meta::at(container, &["resources", field]).and_then(Value::as_object);
            if let Some(amounts) = amounts.filter(|amounts| !amounts.is_empty()) {
                page.put(2, &format!("{title}:"));
                amounts.iter().for_each(|(name, amount)| page.field(3, name, plain(amount)));
            }
        }
        for (title, field) in [
            ("Liveness", "livenessProbe"),
            ("Readiness", "readinessProbe"),
            ("Startup", "startupProbe"),
        ] {
            if let Some(given) = container.get(field) {
                page.field(2, title, probe(given));
            }
        }
        environment(page, of, container);
        mounts(page, container);
    }
}

fn basics(page: &mut Page, container: &Value, state: Option<&Value>) {
    if let Some(state) = state {
        page.field(2, "Container ID", text(state, "containerID"));
    }
    page.field(2, "Image", text(container, "image"));
    if let Some(state) = state {
        page.field(2, "Image ID", text(state, "imageID"));
    }
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports: Vec<String> = items(container, &["ports"])
            .map(|port| {
                let protocol = match text(port, "protocol") {
                    "" => "TCP",
                    protocol => protocol,
                };
                let name = match text(port, "name") {
                    "" => String::new(),
                    name => format!(" ({name})"),
                };
                format!("{}/{protocol}{name}", number(port, &[field]))
            })
            .collect();
        let many = if ports.len() > 1 { "s" } else { "" };
        page.field(2, &format!("{title}{many}"), or_none(&ports.join(", ")));
    }
}

fn put_state(page: &mut Page, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        page.field(2, title, "Running");
        page.field(3, "Started", when(text(running, "startedAt")));
    } else if let Some(ended) = state.get("terminated") {
        page.field(2, title, "Terminated");
        page.given(3, "Reason", text(ended, "reason"));
        page.given(3, "Message", text(ended, "message"));
        page.field(3, "Exit Code", number(ended, &["exitCode"]));
        if number(ended, &["signal"]) > 0 {
            page.field(3, "Signal", number(ended, &["signal"]));
        }
        page.field(3, "Started", when(text(ended, "startedAt")));
        page.field(3, "Finished", when(text(ended, "finishedAt")));
    } else {
        page.field(2, title, "Waiting");
        page.given(3, "Reason", meta::text(state, &["waiting", "reason"]));
    }
}

fn probe(probe: &Value) -> String {
    let figure =
        |field: &str, default: i64| probe.get(field).and_then(Value::as_i64).unwrap_or(default);
    let figures = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        figure("initialDelaySeconds", 0),
        figure("timeoutSeconds", 1),
        figure("periodSeconds", 10),
        figure("successThreshold", 1),
        figure("failureThreshold", 3)
    );
    if let Some(exec) = probe.get("exec") {
        return format!("exec [{}] {figures}", texts(exec, &["command"]).join(" "));
    }
    if let Some(get) = probe.get("httpGet") {
        let scheme = text(get, "scheme").to_lowercase();
        let scheme = if scheme.is_empty() { "http" } else { &scheme };
        let (host, port, path) = (text(get, "host"), plain(&get["port"]), text(get, "path"));
        return format!("http-get {scheme}://{host}:{port}{path} {figures}");
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        let (host, port) = (text(tcp, "host"), plain(&tcp["port"]));
        return format!("tcp-socket {host}:{port} {figures}");
    }
    let grpc = &probe["grpc"];
    format!("grpc <pod>:{} {} {figures}", plain(&grpc["port"]), text(grpc, "service"))
}

fn environment(page: &mut Page, pod: &Value, container: &Value) {
    let mut from = items(container, &["envFrom"]).peekable();
    if from.peek().is_some() {
        page.put(2, "Environment Variables from:");
        for source in from {
            let (kind, source_ref) = match source.get("configMapRef") {
                Some(config) => ("ConfigMap", config),
                None => ("Secret", &source["secretRef"]),
            };
            let prefix = match text(source, "prefix") {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            let optional = source_ref["optional"].as_bool().unwrap_or(false);
            let name = text(source_ref, "name");
            page.put(3, &format!("{name}\t{kind}{prefix}\tOptional: {optional}"));
        }
    }
    let mut all = items(container, &["env"]).peekable();
    page.put(2, if all.peek().is_some() { "Environment:" } else { "Environment:\t<none>" });
    for one in all {
        let name = text(one, "name");
        let from = &one["valueFrom"];
        let key = |reference: &Value, kind: &str| {
            let optional = reference["optional"].as_bool().unwrap_or(false);
            let (key, owner) = (text(reference, "key"), text(reference, "name"));
            format!("<set to the key '{key}' {kind} '{owner}'>\tOptional: {optional}")
        };
        if let Some(field) = from.get("fieldRef") {
            let path = text(field, "fieldPath");
            let version = match text(field, "apiVersion") {
                "" => "v1",
                version => version,
            };
            let steps: Vec<&str> = path.split('.').collect();
            page.field(3, name, format!("{} ({version}:{path})", meta::text(pod, &steps)));
        } else if let Some(resource) = from.get("resourceFieldRef") {
            page.field(3, name, format!("({})", text(resource, "resource")));
        } else if let Some(secret) = from.get("secretKeyRef") {
            page.field(3, name, key(secret, "in secret"));
        } else if let Some(config) = from.get("configMapKeyRef") {
            page.field(3, name, key(config, "of config map"));
        } else {
            let mut lines = text(one, "value").split('\n');
            page.field(3, name, lines.next().unwrap_or(""));
            lines.for_each(|line| page.put(3, &format!("\t{line}")));
        }
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = items(container, &["volumeMounts"]).collect();
    mounts.sort_by_key(|mount| text(mount, "mountPath"));
    page.put(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
    for mount in mounts {
        let mut flags =
            if mount["readOnly"].as_bool() == Some(true) { "ro" } else { "rw" }.to_owned();
        if !text(mount, "subPath").is_empty() {
            flags.push_str(&format!(",path={:?}", text(mount, "subPath")));
        }
        let (path, name) = (text(mount, "mountPath"), text(mount, "name"));
        page.put(3, &format!("{path} from {name} ({flags})"));
    }
}

/// What each kind of volume is called, and its fields: (field, what it says, [(title, field)]).
const VOLUMES: [(&str, &str, &[(&str, &str)]); 5] = [
    (
        "hostPath",
        "HostPath (bare host directory volume)",
        &[("Path", "path"), ("HostPathType", "type")],
    ),
    (
        "emptyDir",
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
        &[("Medium", "medium"), ("SizeLimit", "sizeLimit")],
    ),
    (
        "secret",
        "Secret (a volume populated by a Secret)",
        &[("SecretName", "secretName"), ("Optional", "optional")],
    ),
    (
        "configMap",
        "ConfigMap (a volume populated by a ConfigMap)",
        &[("Name", "name"), ("Optional", "optional")],
    ),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName", "claimName"), ("ReadOnly", "readOnly")],
    ),
];

/// What an absent field says.
fn absent(field: &str) -> &'static str {
    match field {
        "sizeLimit" => "<unset>",
        "type" => "<none>",
        "optional" | "readOnly" => "false",
        _ => "",
    }
}

fn volumes(page: &mut Page, spec: &Value, level: usize) {
    let (indent, name_indent) = if level == 0 { ("", "") } else { ("  ", " ") };
    let mut all = items(spec, &["volumes"]).peekable();
    if all.peek().is_none() {
        page.put(0, &format!("{indent}Volumes:\t<none>"));
        return;
    }
    page.put(0, &format!("{indent}Volumes:"));
    for volume in all {
        page.put(1, &format!("{name_indent}{}:", text(volume, "name")));
        if let Some((field, what, fields)) =
            VOLUMES.iter().find(|(field, ..)| volume.get(*field).is_some())
        {
            page.field(2, "Type", what);
            for (title, name) in *fields {
                let value = plain(&volume[*field][*name]);
                page.field(2, title, if value.is_empty() { absent(name) } else { &value });
            }
        } else if let Some(projected) = volume.get("projected") {
            let what = "Projected (a volume that contains injected data from multiple sources)";
            page.field(2, "Type", what);
            items(projected, &["sources"]).for_each(|source| projection(page, source));
        } else if volume.get("downwardAPI").is_some() {
            page.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
            page.put(2, "Items:");
            for item in items(volume, &["downwardAPI", "items"]) {
                let of = meta::text(item, &["fieldRef", "fieldPath"]);
                page.put(3, &format!("{of} -> {}", text(item, "path")));
            }
        } else {
            let mut kinds = volume.as_object().into_iter().flatten().map(|(name, _)| name);
            let kind = kinds.find(|name| *name != "name").cloned();
            page.field(2, "Type", kind.unwrap_or_else(|| "<unknown>".to_owned()));
        }
    }
}

fn projection(page: &mut Page, source: &Value) {
    let optional = |of: &Value| of["optional"].as_bool().unwrap_or(false);
    if let Some(secret) = source.get("secret") {
        page.field(2, "SecretName", text(secret, "name"));
        page.field(2, "Optional", optional(secret));
    } else if source.get("downwardAPI").is_some() {
        page.field(2, "DownwardAPI", true);
    } else if let Some(config) = source.get("configMap") {
        page.field(2, "ConfigMapName", text(config, "name"));
        page.field(2, "Optional", optional(config));
    } else if let Some(token) = source.get("serviceAccountToken") {
        page.field(2, "TokenExpirationSeconds", number(token, &["expirationSeconds"]));
    }
}
