//! The checks of the Pod Security Standards, one function each, in a table with their versions.
//!
//! Reasons and details are upstream's (`pod-security-admission/policy`), because people read them
//! in the refusals of their deployments.

use std::collections::BTreeSet;

use super::super::list;
use super::policy::Level;
use crate::object::{Value, meta};

/// What a check sees: the annotations of a pod or template, and its spec.
pub(super) struct Pod<'a> {
    pub(super) annotations: Option<&'a crate::object::Map>,
    pub(super) spec: &'a Value,
}

/// Why a check refuses: a reason, and perhaps what exactly.
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) detail: String,
}

type Outcome = Option<Refused>;

/// One check: from which minor version which function counts.
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) level: Level,
    /// (minor version from which it counts, the check), oldest first.
    pub(super) versions: &'static [(u32, fn(&Pod<'_>) -> Outcome)],
    /// The baseline check that this one replaces in the restricted level.
    pub(super) replaces: Option<&'static str>,
}

const fn baseline(id: &'static str, versions: &'static [(u32, fn(&Pod<'_>) -> Outcome)]) -> Check {
    Check { id, level: Level::Baseline, versions, replaces: None }
}

const fn restricted(
    id: &'static str,
    versions: &'static [(u32, fn(&Pod<'_>) -> Outcome)],
    replaces: Option<&'static str>,
) -> Check {
    Check { id, level: Level::Restricted, versions, replaces }
}

/// All checks in upstream's order: the baseline's by name, then the restricted level's.
pub(super) const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_path)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts)]),
    baseline("privileged", &[(0, privileged)]),
    baseline("procMount", &[(0, proc_mount), (35, proc_mount_1_35)]),
    baseline("seLinuxOptions", &[(0, se_linux_1_0), (31, se_linux_1_31)]),
    baseline("seccompProfile_baseline", &[(0, seccomp_1_0), (19, seccomp_1_19)]),
    baseline(
        "sysctls",
        &[(0, sysctls_1_0), (27, sysctls_1_27), (29, sysctls_1_29), (32, sysctls_1_32)],
    ),
    baseline("windowsHostProcess", &[(0, host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, escalation_1_8), (25, escalation_1_25)], None),
    restricted(
        "capabilities_restricted",
        &[(22, capabilities_1_22), (25, capabilities_1_25)],
        Some("capabilities_baseline"),
    ),
    restricted("procMount_restricted", &[(35, proc_mount)], Some("procMount")),
    restricted("restrictedVolumes", &[(0, volumes)], Some("hostPathVolumes")),
    restricted("runAsNonRoot", &[(0, non_root_1_0), (35, non_root_1_35)], None),
    restricted("runAsUser", &[(23, user_1_23), (35, user_1_35)], None),
    restricted(
        "seccompProfile_restricted",
        &[(19, seccomp_set_1_19), (25, seccomp_set_1_25)],
        Some("seccompProfile_baseline"),
    ),
];

fn refuse(reason: &str, detail: impl Into<String>) -> Outcome {
    Some(Refused { reason: reason.to_owned(), detail: detail.into() })
}

fn containers<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    let spec = pod.spec;
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |field| list(spec, &[field]))
}

/// The names of the containers that fail.
fn failing<'a>(pod: &Pod<'a>, mut fails: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
    containers(pod)
        .filter(|container| fails(container))
        .map(|container| meta::text(container, &["name"]))
        .collect()
}

fn quoted<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| format!("{:?}", text.as_ref())).collect();
    texts.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn of_containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// Who set something wrong: the pod, containers, or both.
fn setters(pod_is_wrong: bool, names: &[&str]) -> Option<String> {
    let containers = (!names.is_empty()).then(|| of_containers(names));
    let parts: Vec<String> =
        pod_is_wrong.then(|| "pod".to_owned()).into_iter().chain(containers).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn is_true(value: &Value, path: &[&str]) -> bool {
    meta::at(value, path) == Some(&Value::Bool(true))
}

fn is_windows(pod: &Pod<'_>) -> bool {
    meta::text(pod.spec, &["os", "name"]) == "windows"
}

/// Root in a user namespace of its own is nobody on the node.
fn has_own_users(pod: &Pod<'_>) -> bool {
    pod.spec.get("hostUsers") == Some(&Value::Bool(false))
}

fn app_armor(pod: &Pod<'_>) -> Outcome {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let path = ["securityContext", "appArmorProfile", "type"];
    let mut values = BTreeSet::new();
    let mut is_wrong = |value: &Value| {
        let is_set = meta::at(value, &path[..2]).is_some_and(Value::is_object);
        let kind = meta::text(value, &path);
        let wrong = is_set && !["RuntimeDefault", "Localhost"].contains(&kind);
        if wrong {
            values.insert(kind.to_owned());
        }
        wrong
    };
    let pod_is_wrong = is_wrong(pod.spec);
    let names = failing(pod, &mut is_wrong);
    let mut who: Vec<String> = setters(pod_is_wrong, &names).into_iter().collect();
    let mut annotations = BTreeSet::new();
    for (key, value) in pod.annotations.into_iter().flatten() {
        let value = value.as_str().unwrap_or("");
        let allowed =
            value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        if key.starts_with(PREFIX) && !allowed {
            annotations.insert(format!("{key}={value:?}"));
        }
    }
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let who = who.join(" and ");
    refuse(reason, format!("{who} must not set AppArmor profile type to {}", quoted(values)))
}

/// Containers that add other capabilities than these.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut wrong = BTreeSet::new();
    let names = failing(pod, |container| {
        let added = list(container, &["securityContext", "capabilities", "add"]);
        let bad: Vec<&str> =
            added.iter().filter_map(Value::as_str).filter(|name| !allowed.contains(name)).collect();
        wrong.extend(bad.iter().copied());
        !bad.is_empty()
    });
    (names, wrong)
}

fn capabilities_baseline(pod: &Pod<'_>) -> Outcome {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (names, wrong) = adding(pod, &ALLOWED);
    if names.is_empty() {
        return None;
    }
    let (who, wrong) = (of_containers(&names), quoted(wrong));
    let detail = format!("{who} must not include {wrong} in securityContext.capabilities.add");
    refuse("non-default capabilities", detail)
}

fn capabilities_1_22(pod: &Pod<'_>) -> Outcome {
    let keeping = failing(pod, |container| {
        let dropped = list(container, &["securityContext", "capabilities", "drop"]);
        !dropped.iter().any(|name| name == "ALL")
    });
    let (names, wrong) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = of_containers(&keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !names.is_empty() {
        let (who, wrong) = (of_containers(&names), quoted(wrong));
        details.push(format!("{who} must not include {wrong} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { refuse("unrestricted capabilities", details.join("; ")) }
}

fn capabilities_1_25(pod: &Pod<'_>) -> Outcome {
    if is_windows(pod) { None } else { capabilities_1_22(pod) }
}

fn host_namespaces(pod: &Pod<'_>) -> Outcome {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| is_true(pod.spec, &[field]))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { refuse("host namespaces", shared.join(", ")) }
}

fn host_path(pod: &Pod<'_>) -> Outcome {
    let names: Vec<&str> = list(pod.spec, &["volumes"])
        .iter()
        .filter(|volume| volume.get("hostPath").is_some_and(Value::is_object))
        .map(|volume| meta::text(volume, &["name"]))
        .collect();
    if names.is_empty() {
        return None;
    }
    let what = plural("volume", "volumes", names.len());
    refuse("hostPath volumes", format!("{what} {}", quoted(names)))
}

fn host_ports(pod: &Pod<'_>) -> Outcome {
    let mut ports = BTreeSet::new();
    let names = failing(pod, |container| {
        let own: Vec<String> = list(container, &["ports"])
            .iter()
            .filter_map(|port| port.get("hostPort").and_then(Value::as_i64))
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let any = !own.is_empty();
        ports.extend(own);
        any
    });
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let what = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    refuse("hostPort", format!("{} {uses} {what} {}", of_containers(&names), ports.join(", ")))
}

fn probe_hosts(pod: &Pod<'_>) -> Outcome {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut hosts = BTreeSet::new();
    let mut names = failing(pod, |container| {
        let mut any = false;
        for handler in HANDLERS.iter().filter_map(|path| meta::at(container, path)) {
            for action in ["httpGet", "tcpSocket"] {
                let host = meta::text(handler, &[action, "host"]);
                if !host.is_empty() {
                    hosts.insert(host);
                    any = true;
                }
            }
        }
        any
    });
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    let uses = plural("uses", "use", names.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let detail = format!("{} {uses} {what} {}", of_containers(&names), quoted(hosts));
    refuse("probe or lifecycle host", detail)
}

fn privileged(pod: &Pod<'_>) -> Outcome {
    let names = failing(pod, |container| is_true(container, &["securityContext", "privileged"]));
    if names.is_empty() {
        return None;
    }
    let who = of_containers(&names);
    refuse("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount(pod: &Pod<'_>) -> Outcome {
    let mut kinds = BTreeSet::new();
    let names = failing(pod, |container| {
        let kind = meta::at(container, &["securityContext", "procMount"]).and_then(Value::as_str);
        let wrong = kind.filter(|kind| *kind != "Default");
        kinds.extend(wrong);
        wrong.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let who = of_containers(&names);
    let kinds = quoted(kinds);
    refuse("procMount", format!("{who} must not set securityContext.procMount to {kinds}"))
}

fn proc_mount_1_35(pod: &Pod<'_>) -> Outcome {
    if has_own_users(pod) { None } else { proc_mount(pod) }
}

fn se_linux(pod: &Pod<'_>, more: &[&str]) -> Outcome {
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_wrong = |value: &Value| {
        let Some(options) = meta::at(value, &["securityContext", "seLinuxOptions"]) else {
            return false;
        };
        let text = |field: &str| meta::text(options, &[field]);
        let kind = text("type");
        let allowed = ["", "container_t", "container_init_t", "container_kvm_t"].contains(&kind)
            || more.contains(&kind);
        if !allowed {
            kinds.insert(kind.to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !allowed || !text("user").is_empty() || !text("role").is_empty()
    };
    let pod_is_wrong = is_wrong(pod.spec);
    let names = failing(pod, &mut is_wrong);
    let who = setters(pod_is_wrong, &names)?;
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(kinds)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let what = what.join("; ");
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {what}");
    refuse("seLinuxOptions", detail)
}

fn se_linux_1_0(pod: &Pod<'_>) -> Outcome {
    se_linux(pod, &[])
}

fn se_linux_1_31(pod: &Pod<'_>) -> Outcome {
    se_linux(pod, &["container_engine_t"])
}

fn seccomp_1_0(pod: &Pod<'_>) -> Outcome {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let keys = std::iter::once(POD.to_owned()).chain(
        containers(pod).map(|container| format!("{CONTAINER}{}", meta::text(container, &["name"]))),
    );
    let mut wrong = BTreeSet::new();
    for key in keys {
        let value = pod.annotations.and_then(|all| all.get(&key)).and_then(Value::as_str);
        let Some(value) = value else { continue };
        let allowed = ["runtime/default", "docker/default"].contains(&value);
        if !allowed && !value.starts_with("localhost/") {
            wrong.insert(format!("{key}={value:?}"));
        }
    }
    if wrong.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", wrong.len());
    let wrong: Vec<String> = wrong.into_iter().collect();
    refuse("seccompProfile", format!("forbidden {what} {}", wrong.join(", ")))
}

/// The profile that is set there, if one is.
fn seccomp_of(value: &Value) -> Option<&str> {
    let profile = meta::at(value, &["securityContext", "seccompProfile"])?;
    profile.is_object().then(|| meta::text(profile, &["type"]))
}

fn is_good_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp_1_19(pod: &Pod<'_>) -> Outcome {
    let mut values = BTreeSet::new();
    let mut is_wrong = |value: &Value| {
        let wrong = seccomp_of(value).filter(|kind| !is_good_seccomp(kind));
        values.extend(wrong.map(str::to_owned));
        wrong.is_some()
    };
    let pod_is_wrong = is_wrong(pod.spec);
    let names = failing(pod, &mut is_wrong);
    let who = setters(pod_is_wrong, &names)?;
    let values = quoted(values);
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {values}");
    refuse("seccompProfile", detail)
}

fn seccomp_set_1_19(pod: &Pod<'_>) -> Outcome {
    if let Some(refused) = seccomp_1_19(pod) {
        return Some(refused);
    }
    let pod_is_set = seccomp_of(pod.spec).is_some();
    let names = failing(pod, |container| !pod_is_set && seccomp_of(container).is_none());
    if names.is_empty() {
        return None;
    }
    refuse(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            of_containers(&names)
        ),
    )
}

fn seccomp_set_1_25(pod: &Pod<'_>) -> Outcome {
    if is_windows(pod) { None } else { seccomp_set_1_19(pod) }
}

const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod<'_>, allowed: &[&str]) -> Outcome {
    let wrong: Vec<&str> = list(pod.spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| meta::text(sysctl, &["name"]))
        .filter(|name| !allowed.contains(name))
        .collect();
    if wrong.is_empty() { None } else { refuse("forbidden sysctls", wrong.join(", ")) }
}

fn sysctls_1_0(pod: &Pod<'_>) -> Outcome {
    sysctls(pod, &SAFE_SYSCTLS[..5])
}

fn sysctls_1_27(pod: &Pod<'_>) -> Outcome {
    sysctls(pod, &SAFE_SYSCTLS[..6])
}

fn sysctls_1_29(pod: &Pod<'_>) -> Outcome {
    sysctls(pod, &SAFE_SYSCTLS[..10])
}

fn sysctls_1_32(pod: &Pod<'_>) -> Outcome {
    sysctls(pod, &SAFE_SYSCTLS)
}

fn host_process(pod: &Pod<'_>) -> Outcome {
    let path = ["securityContext", "windowsOptions", "hostProcess"];
    let names = failing(pod, |container| is_true(container, &path));
    let who = setters(is_true(pod.spec, &path), &names)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    refuse("hostProcess", detail)
}

fn escalation_1_8(pod: &Pod<'_>) -> Outcome {
    let path = ["securityContext", "allowPrivilegeEscalation"];
    let names = failing(pod, |container| meta::at(container, &path) != Some(&Value::Bool(false)));
    if names.is_empty() {
        return None;
    }
    let who = of_containers(&names);
    refuse(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn escalation_1_25(pod: &Pod<'_>) -> Outcome {
    if is_windows(pod) { None } else { escalation_1_8(pod) }
}

fn volumes(pod: &Pod<'_>) -> Outcome {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(pod.spec, &["volumes"]) {
        let sources: Vec<&str> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, source)| source.is_object())
            .map(|(kind, _)| kind.as_str())
            .collect();
        if sources.iter().any(|kind| ALLOWED.contains(kind)) {
            continue;
        }
        names.push(meta::text(volume, &["name"]));
        kinds.insert(sources.first().copied().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    refuse("restricted volume types", detail)
}

fn non_root_1_0(pod: &Pod<'_>) -> Outcome {
    const REASON: &str = "runAsNonRoot != true";
    let of = |value: &Value| {
        meta::at(value, &["securityContext", "runAsNonRoot"]).and_then(Value::as_bool)
    };
    let names = failing(pod, |container| of(container) == Some(false));
    if let Some(who) = setters(of(pod.spec) == Some(false), &names) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return refuse(REASON, detail);
    }
    let pod_is_set = of(pod.spec) == Some(true);
    let names = failing(pod, |container| !pod_is_set && of(container).is_none());
    if names.is_empty() {
        return None;
    }
    let who = of_containers(&names);
    refuse(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn non_root_1_35(pod: &Pod<'_>) -> Outcome {
    if has_own_users(pod) { None } else { non_root_1_0(pod) }
}

fn user_1_23(pod: &Pod<'_>) -> Outcome {
    let is_root = |value: &Value| {
        meta::at(value, &["securityContext", "runAsUser"]).and_then(Value::as_i64) == Some(0)
    };
    let who = setters(is_root(pod.spec), &failing(pod, is_root))?;
    refuse("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn user_1_35(pod: &Pod<'_>) -> Outcome {
    if has_own_users(pod) { None } else { user_1_23(pod) }
}
