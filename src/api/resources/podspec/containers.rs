//! Containers, init containers and ephemeral containers.
//!
//! Why one common check: the three differ in what they may not have, not in what they are.

use super::super::field::{Errors, Field};
use super::super::{names, validate};
use super::volumes::Volume;
use super::{env, probes, resources, security};
use crate::object::status::FieldError;

/// What of the pod a container's check needs.
pub(super) struct Context<'a, 'v> {
    pub(super) volumes: &'a [Volume<'v>],
    pub(super) claims: &'a [&'v str],
    pub(super) grace: Option<i64>,
    pub(super) host_users: bool,
    pub(super) restart_policy: &'v str,
}

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const RESTART_ACTIONS: &[&str] = &["Restart", "RestartAllContainers"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// `containers`, `initContainers` and `ephemeralContainers` of a PodSpec.
pub(super) fn all(spec: &Field, context: &Context, out: &mut Errors) {
    regular(spec, context, out);
    init(spec, context, out);
    ephemeral(spec, context, out);
}

fn regular(spec: &Field, context: &Context, out: &mut Errors) {
    let (list, os) = (spec.get("containers"), spec.get("os"));
    if list.is_empty() {
        out.push(list.required(""));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for container in list.items() {
        common(&container, context, out);
        let name = container.get("name");
        if seen.contains(&name.text()) {
            out.push(name.duplicate());
        }
        seen.push(name.text());
        probes::all(&container, context.grace, &os, out);
        restart_policy(&container, out);
    }
    host_ports(&list, 0..list.len(), out);
}

fn init(spec: &Field, context: &Context, out: &mut Errors) {
    let (list, os) = (spec.get("initContainers"), spec.get("os"));
    let regular = spec.get("containers");
    let mut seen: Vec<String> =
        regular.items().map(|other| other.get("name").text().to_owned()).collect();
    for (at, container) in list.items().enumerate() {
        common(&container, context, out);
        restart_policy(&container, out);
        let name = container.get("name");
        if seen.iter().any(|other| other == name.text()) {
            out.push(name.duplicate());
        } else if !name.text().is_empty() {
            seen.push(name.text().to_owned());
        }
        host_ports(&list, at..at + 1, out);
        if container.get("restartPolicy").text() == "Always" {
            probes::all(&container, context.grace, &os, out);
            continue;
        }
        probes::none(&container, out);
        for policy in container.get("resizePolicy").items() {
            let policy = policy.get("restartPolicy");
            if policy.text() == "RestartContainer" {
                out.push(policy.invalid(
                    "must not be set to 'RestartContainer' for non-sidecar initContainers",
                ));
            }
        }
    }
}

/// What an ephemeral container may not have: it comes late and must not be relied upon.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

fn ephemeral(spec: &Field, context: &Context, out: &mut Errors) {
    let name_of = |container: Field| container.get("name").text().to_owned();
    let (regular, init) = (spec.get("containers"), spec.get("initContainers"));
    let others: Vec<String> =
        regular.items().map(name_of).chain(init.items().map(name_of)).collect();
    let mut seen = others.clone();
    for container in spec.get("ephemeralContainers").items() {
        common(&container, context, out);
        image_is_trimmed(&container, out);
        let (name, target) = (container.get("name"), container.get("targetContainerName"));
        if seen.iter().any(|other| other == name.text()) {
            out.push(name.duplicate());
        } else {
            seen.push(name.text().to_owned());
        }
        if !target.text().is_empty() && !others.iter().any(|other| other == target.text()) {
            out.push(FieldError::not_found(target.path(), target.text()));
        }
        for name in NOT_EPHEMERAL {
            let field = container.get(name);
            if !field.is_empty() {
                out.push(field.forbidden("cannot be set for an Ephemeral Container"));
            }
        }
        for mount in container.get("volumeMounts").items() {
            for path in ["subPath", "subPathExpr"] {
                let path = mount.get(path);
                if !path.text().is_empty() {
                    out.push(path.forbidden("cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

/// A Pod's image may not be padded; a template's may, for old objects' sake.
pub(super) fn image_is_trimmed(container: &Field, out: &mut Errors) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        out.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn common(container: &Field, context: &Context, out: &mut Errors) {
    validate::required_format(&container.get("name"), names::dns_label, out);
    validate::required(&container.get("image"), out);
    validate::one_of(
        &container.get("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
        out,
    );
    ports(&container.get("ports"), out);
    env::variables(&container.get("env"), out);
    env::sources(&container.get("envFrom"), out);
    mounts(container, context.volumes, out);
    devices(container, context.volumes, out);
    pull_policy(&container.get("imagePullPolicy"), out);
    resources::container(&container.get("resources"), context.claims, out);
    resize_policy(&container.get("resizePolicy"), context.restart_policy, out);
    security::container(&container.get("securityContext"), context.host_users, out);
}

/// When an image is pulled.
pub(super) fn pull_policy(field: &Field, out: &mut Errors) {
    validate::one_of(field, &["Always", "IfNotPresent", "Never"], out);
}

fn ports(list: &Field, out: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for port in list.items() {
        let (name, number) = (port.get("name"), port.get("containerPort"));
        if !name.text().is_empty() {
            let before = out.len();
            validate::format(&name, names::port_name, out);
            if out.len() == before && seen.contains(&name.text()) {
                out.push(name.duplicate());
            }
            seen.push(name.text());
        }
        match number.int() {
            None | Some(0) => out.push(number.required("")),
            Some(_) => validate::port_number(&number, out),
        }
        let host = port.get("hostPort");
        if host.int().unwrap_or(0) != 0 {
            validate::port_number(&host, out);
        }
        validate::protocol(&port.get("protocol"), out);
    }
}

/// Two containers cannot both have a port of the host.
fn host_ports(list: &Field, range: std::ops::Range<usize>, out: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for container in list.items().take(range.end).skip(range.start) {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            let Some(number) = host.int().filter(|number| *number != 0) else { continue };
            let (protocol, ip) = (port.get("protocol").text(), port.get("hostIP").text());
            let key = format!("{protocol}/{ip}/{number}");
            if seen.contains(&key) {
                out.push(FieldError::duplicate(host.path(), key.clone()));
            }
            seen.push(key);
        }
    }
}

fn mounts(container: &Field, volumes: &[Volume], out: &mut Errors) {
    let (list, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let privileged = container.get("securityContext").get("privileged").flag();
    let mut seen: Vec<&str> = Vec::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.text().is_empty() {
            out.push(name.required(""));
        }
        if !volumes.iter().any(|volume| volume.name == name.text()) {
            out.push(FieldError::not_found(name.path(), name.text()));
        }
        validate::required(&path, out);
        if seen.contains(&path.text()) {
            out.push(path.invalid("must be unique"));
        }
        seen.push(path.text());
        if devices.items().any(|device| device.get("name").text() == name.text()) {
            out.push(name.invalid("must not already exist in volumeDevices"));
        }
        if devices.items().any(|device| device.get("devicePath").text() == path.text()) {
            out.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        // Upstream leaves the index out of these three paths.
        let sub = list.named("subPath", mount.get("subPath").value());
        validate::descending_path(&sub, out);
        let expression = mount.get("subPathExpr");
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                out.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
            }
            validate::descending_path(&list.named("subPathExpr", expression.value()), out);
        }
        propagation(&list, &mount, privileged, out);
    }
}

fn propagation(list: &Field, mount: &Field, privileged: bool, out: &mut Errors) {
    let field = list.named("mountPropagation", mount.get("mountPropagation").value());
    validate::optional_one_of(&field, &["Bidirectional", "HostToContainer", "None"], out);
    if field.text() == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        out.push(field.forbidden(why));
    }
    let recursive = list.named("recursiveReadOnly", mount.get("recursiveReadOnly").value());
    let allowed = ["Disabled", "Enabled", "IfPossible"];
    validate::optional_one_of(&recursive, &allowed, out);
    if matches!(recursive.text(), "Enabled" | "IfPossible") {
        if !mount.get("readOnly").flag() {
            out.push(recursive.forbidden("may only be specified when readOnly is true"));
        }
        if !matches!(field.text(), "" | "None") {
            let why = "may only be specified when mountPropagation is None or not specified";
            out.push(recursive.forbidden(why));
        }
    }
}

fn devices(container: &Field, volumes: &[Volume], out: &mut Errors) {
    let mounts = container.get("volumeMounts");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        validate::required(&name, out);
        if names.contains(&name.text()) {
            out.push(name.invalid("must be unique"));
        }
        match volumes.iter().find(|volume| volume.name == name.text()) {
            None => out.push(FieldError::not_found(name.path(), name.text())),
            Some(volume) if !volume.claim => out.push(name.invalid(
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block \
                 mode",
            )),
            Some(_) => {}
        }
        validate::required(&path, out);
        if paths.contains(&path.text()) {
            out.push(path.invalid("must be unique"));
        }
        if path.text().split('/').any(|part| part == "..") {
            out.push(path.invalid("can not contain backsteps ('..')"));
        }
        if mounts.items().any(|mount| mount.get("name").text() == name.text()) {
            out.push(name.invalid("must not already exist in volumeMounts"));
        }
        if mounts.items().any(|mount| mount.get("mountPath").text() == path.text()) {
            out.push(path.invalid("must not already exist as a path in volumeMounts"));
        }
        names.push(name.text());
        paths.push(path.text());
    }
}

fn resize_policy(list: &Field, pod_restart_policy: &str, out: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for item in list.items() {
        let (resource, policy) = (item.get("resourceName"), item.get("restartPolicy"));
        if seen.contains(&resource.text()) {
            out.push(FieldError::duplicate(item.path(), resource.text()));
        }
        seen.push(resource.text());
        // Upstream names the list, not the item's member.
        let shown = list.named("", resource.value());
        validate::one_of(&shown, &["cpu", "memory"], out);
        let shown = list.named("", policy.value());
        validate::one_of(&shown, &["NotRequired", "RestartContainer"], out);
        if pod_restart_policy == "Never" && policy.text() != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            out.push(shown.invalid(why));
        }
    }
}

fn restart_policy(container: &Field, out: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if !policy.is_set() {
        if !rules.is_empty() {
            out.push(policy.required("must specify restartPolicy when restart rules are used"));
        }
    } else if !RESTART_POLICIES.contains(&policy.text()) {
        out.push(policy.not_supported(RESTART_POLICIES));
    }
    if rules.len() > RESTART_RULES_MAX {
        out.push(rules.too_many(RESTART_RULES_MAX));
    }
    for rule in rules.items() {
        let (action, codes) = (rule.get("action"), rule.get("exitCodes"));
        if !RESTART_ACTIONS.contains(&action.text()) {
            out.push(FieldError::not_supported(action.path(), action.text(), RESTART_ACTIONS));
        }
        if !codes.is_set() {
            out.push(codes.required("must be specified"));
            continue;
        }
        let (operator, values) = (codes.get("operator"), codes.get("values"));
        if !matches!(operator.text(), "In" | "NotIn") {
            let allowed = ["In", "NotIn"];
            out.push(FieldError::not_supported(operator.path(), operator.text(), &allowed));
        }
        if values.len() > EXIT_CODES_MAX {
            out.push(values.too_many(EXIT_CODES_MAX));
        }
    }
}
