//! A whole PodSpec, and a pod template around one.
//!
//! Why in upstream's order: a client that shows only the first fault shows the same one.

use super::super::field::{Errors, Field};
use super::super::{names, validate};
use super::containers::{self, Context};
use super::{Owner, resources, scheduling, security, volumes};
use crate::object::status::FieldError;

const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

/// A PodSpec; `pod` is the Pod's name where it is a Pod's own.
pub(in super::super) fn validate(spec: &Field, pod: Option<&str>, out: &mut Errors) {
    let owner = if pod.is_some() { Owner::Pod } else { Owner::Template };
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        out.push(grace.required(""));
    }
    let claims = claims(spec, out);
    let host_users = spec.get("hostUsers");
    let volumes = volumes::all(&spec.get("volumes"), pod, owner, out);
    let context = Context {
        volumes: &volumes,
        claims: &claims,
        grace: grace.int(),
        host_users: !host_users.is_set() || host_users.flag(),
        restart_policy: spec.get("restartPolicy").text(),
    };
    containers::all(spec, &context, out);
    resources::pod_level(spec, out);
    host_network(spec, owner, out);
    validate::one_of(&spec.get("restartPolicy"), &["Always", "OnFailure", "Never"], out);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    validate::one_of(&spec.get("dnsPolicy"), &policies, out);
    validate::labels(&spec.get("nodeSelector"), out);
    security::pod(spec, out);
    scheduling::affinity(&spec.get("affinity"), out);
    dns_config(spec, out);
    for gate in spec.get("readinessGates").items() {
        validate::format(&gate.get("conditionType"), names::qualified_name, out);
    }
    scheduling::gates(&spec.get("schedulingGates"), out);
    scheduling::spread(&spec.get("topologySpreadConstraints"), out);
    host_users_alone(spec, out);
    hostname_override(spec, out);
    names_of_others(spec, out);
    let deadline = spec.get("activeDeadlineSeconds");
    validate::in_range(&deadline, 1, i64::from(i32::MAX), out);
    validate::optional_format(&spec.get("hostname"), names::dns_label, out);
    validate::optional_format(&spec.get("subdomain"), names::dns_label, out);
    scheduling::tolerations(&spec.get("tolerations"), out);
    for alias in spec.get("hostAliases").items() {
        validate::format(&alias.get("ip"), names::ip, out);
        let hosts = alias.get("hostnames");
        hosts.items().for_each(|host| validate::format(&host, names::dns_subdomain, out));
    }
    validate::optional_one_of(
        &spec.get("preemptionPolicy"),
        &["PreemptLowerPriority", "Never"],
        out,
    );
    resources::overhead(&spec.get("overhead"), out);
    operating_system(spec, out);
    env_files(spec, &["containers", "initContainers", "ephemeralContainers"], out);
}

fn names_of_others(spec: &Field, out: &mut Errors) {
    for name in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        validate::optional_format(&spec.get(name), names::dns_subdomain, out);
    }
}

/// `resourceClaims`; gives their names.
fn claims<'v>(spec: &Field<'_, 'v>, out: &mut Errors) -> Vec<&'v str> {
    let mut seen: Vec<&'v str> = Vec::new();
    for claim in spec.get("resourceClaims").items() {
        let name = claim.get("name");
        if seen.contains(&name.text()) {
            out.push(name.duplicate());
        } else {
            validate::required_format(&name, names::dns_label, out);
            seen.push(name.text());
        }
        let (direct, template) =
            (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (direct.is_set(), template.is_set()) {
            (true, true) => out.push(claim.invalid(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be \
                 specified",
            )),
            (false, false) => {
                out.push(claim.invalid(
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                ))
            }
            _ => {}
        }
        validate::optional_format(&direct, names::dns_subdomain, out);
        validate::optional_format(&template, names::dns_subdomain, out);
    }
    seen
}

/// On the host's network a port is the host's; a template may leave it to be filled in.
fn host_network(spec: &Field, owner: Owner, out: &mut Errors) {
    if !spec.get("hostNetwork").flag() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            let number = host.int().unwrap_or(0);
            let differs = number != port.get("containerPort").int().unwrap_or(0);
            if differs && (owner == Owner::Pod || number != 0) {
                let why = "must match `containerPort` when `hostNetwork` is true";
                out.push(host.invalid_as(number, why));
            }
        }
    }
}

fn dns_config(spec: &Field, out: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            out.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            out.push(servers.required(why));
            return;
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        out.push(servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")));
    }
    servers.items().for_each(|server| validate::format(&server, names::ip, out));
    if searches.len() > SEARCH_PATHS_MAX {
        let why = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        out.push(searches.invalid(why));
    }
    let characters: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if characters > SEARCH_CHARACTERS_MAX + 1 {
        out.push(searches.invalid(format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the \
             search list"
        )));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text();
        let text = text.strip_suffix('.').unwrap_or(text);
        for fault in names::dns_subdomain_with_underscore(text) {
            out.push(search.invalid_as(text, fault));
        }
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            out.push(option.required("must not be empty"));
        }
    }
}

/// With a user namespace of its own a pod may not use the host's other namespaces.
fn host_users_alone(spec: &Field, out: &mut Errors) {
    let users = spec.get("hostUsers");
    if !users.is_set() || users.flag() {
        return;
    }
    for (name, shown) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if spec.get(name).flag() {
            out.push(spec.get(shown).forbidden("when `hostUsers` is false"));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            let devices = container.get("volumeDevices");
            if !devices.is_empty() {
                out.push(devices.forbidden("when `hostUsers` is false"));
            }
        }
    }
}

fn hostname_override(spec: &Field, out: &mut Errors) {
    const HOST_NAME_MAX: usize = 64;
    let name = spec.get("hostnameOverride");
    if !name.is_set() {
        return;
    }
    if spec.get("setHostnameAsFQDN").flag() {
        out.push(name.forbidden("may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.get("hostNetwork").flag() {
        out.push(name.forbidden("may not be specified when hostNetwork is true"));
    }
    if name.text().len() > HOST_NAME_MAX {
        out.push(name.too_long(HOST_NAME_MAX));
    }
    validate::format(&name, names::dns_subdomain, out);
}

fn operating_system(spec: &Field, out: &mut Errors) {
    let os = spec.get("os");
    if !os.is_set() {
        return;
    }
    let name = os.get("name");
    match name.text() {
        "" => out.push(name.required("")),
        "linux" | "windows" => {}
        other => {
            out.push(FieldError::not_supported(os.path(), other, &["linux", "windows"]));
        }
    }
    if name.text() == "linux" {
        let security = spec.get("securityContext");
        let options = security.get("windowsOptions");
        if options.is_set() {
            out.push(options.forbidden("windows options cannot be set for a linux pod"));
        }
    }
}

/// A variable read from a file needs an emptyDir that holds the file.
fn env_files(spec: &Field, lists: &[&str], out: &mut Errors) {
    let volumes = spec.get("volumes");
    for list in lists {
        for container in spec.get(list).items() {
            for variable in container.get("env").items() {
                let source = variable.get("valueFrom");
                let reference = source.get("fileKeyRef");
                if !reference.is_set() {
                    continue;
                }
                let name = reference.get("volumeName");
                let volume = volumes.items().find(|it| it.get("name").text() == name.text());
                match volume {
                    None => out.push(FieldError::not_found(name.path(), name.text())),
                    Some(volume) if !volume.get("emptyDir").is_set() => {
                        out.push(name.invalid("referenced volume must be of type emptyDir"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// What only a Pod's own spec is held to.
pub(in super::super) fn pod_only(spec: &Field, out: &mut Errors) {
    if spec.get("serviceAccountName").text().is_empty() {
        for volume in spec.get("volumes").items() {
            let projected = volume.get("projected");
            for source in projected.get("sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    let why = "must not be specified when serviceAccountName is not set";
                    out.push(token.forbidden(why));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            containers::image_is_trimmed(&container, out);
        }
    }
}

/// Annotations that the pod's components read.
pub(in super::super) fn pod_annotations(annotations: &Field, spec: &Field, out: &mut Errors) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let mirror = annotations.key(MIRROR);
    if mirror.is_set() && spec.get("nodeName").text().is_empty() {
        out.push(mirror.invalid("must set spec.nodeName if mirror pod annotation is set"));
    }
    let cost = annotations.key(DELETION_COST);
    // Upstream takes no plus sign and no leading zeros.
    let plain = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        !text.starts_with('+') && (digits == "0" || !digits.starts_with('0'))
    };
    if cost.is_set() && !(plain(cost.text()) && cost.text().parse::<i32>().is_ok()) {
        out.push(cost.invalid("must be a 32bit integer"));
    }
}

/// A pod template.
pub(in super::super) fn template(template: &Field, out: &mut Errors) {
    let metadata = template.get("metadata");
    let (labels, annotations) = (metadata.get("labels"), metadata.get("annotations"));
    // Upstream's paths of these two lack the "metadata".
    validate::labels(&template.named("labels", labels.value()), out);
    let annotations = template.named("annotations", annotations.value());
    validate::annotations(&annotations, out);
    let spec = template.get("spec");
    pod_annotations(&annotations, &spec, out);
    validate(&spec, None, out);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        out.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}
