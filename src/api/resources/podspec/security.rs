//! Security contexts of pods and containers.
//!
//! Why here what the node refuses later: a user learns of a contradiction when writing, not from a
//! pod that never starts.

use super::super::field::{Errors, Field};
use super::super::validate;

const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_NAME_MAX: usize = 253;
const LOCALHOST_PROFILE_MAX: usize = 4095;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The pod's `securityContext`.
pub(super) fn pod(spec: &Field, out: &mut Errors) {
    let field = spec.get("securityContext");
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate::in_range(&field.get(id), 0, ID_MAX, out);
    }
    let groups = field.get("supplementalGroups");
    groups.items().for_each(|group| validate::in_range(&group, 0, ID_MAX, out));
    let shared = spec.get("shareProcessNamespace");
    if shared.flag() && spec.get("hostPID").flag() {
        let shown = field.named("shareProcessNamespace", shared.value());
        out.push(shown.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    sysctls(spec, &field.get("sysctls"), out);
    for (name, allowed) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        validate::optional_one_of(&field.get(name), &allowed, out);
    }
    seccomp(&field.get("seccompProfile"), out);
    apparmor(&field.get("appArmorProfile"), out);
}

fn sysctls(spec: &Field, list: &Field, out: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        let alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum)
            && bytes.iter().all(|byte| alnum(byte) || b"-_".contains(byte))
    };
    for sysctl in list.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if text.is_empty() {
            out.push(name.required(""));
        } else if text.len() > SYSCTL_NAME_MAX || !text.split(['.', '/']).all(segment) {
            out.push(name.invalid(format!(
                "must have at most {SYSCTL_NAME_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            )));
        } else if seen.contains(&text) {
            out.push(name.duplicate());
        }
        if spec.get("hostNetwork").flag() && text.starts_with("net.") {
            out.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        }
        let ipc = text.starts_with("fs.mqueue.")
            || ["kernel.shm", "kernel.msg", "kernel.sem"].iter().any(|it| text.starts_with(it));
        if spec.get("hostIPC").flag() && ipc {
            out.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
        seen.push(text);
    }
}

/// A container's `securityContext`.
pub(super) fn container(field: &Field, host_users: bool, out: &mut Errors) {
    for id in ["runAsUser", "runAsGroup"] {
        validate::in_range(&field.get(id), 0, ID_MAX, out);
    }
    let proc_mount = field.get("procMount");
    validate::optional_one_of(&proc_mount, &["Default", "Unmasked"], out);
    if host_users && proc_mount.text() == "Unmasked" {
        out.push(proc_mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    seccomp(&field.get("seccompProfile"), out);
    let escalation = field.get("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.flag() {
        if field.get("privileged").flag() {
            out.push(field.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let capabilities = field.get("capabilities");
        let added = capabilities.get("add");
        if added.items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            out.push(field.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                 CAP_SYS_ADMIN",
            ));
        }
    }
    apparmor(&field.get("appArmorProfile"), out);
}

fn profile_type(field: &Field, required: &str, out: &mut Errors) {
    let kind = field.get("type");
    if kind.text().is_empty() {
        out.push(kind.required(required));
    } else if !PROFILE_TYPES.contains(&kind.text()) {
        out.push(kind.not_supported(PROFILE_TYPES));
    }
}

fn seccomp(field: &Field, out: &mut Errors) {
    if !field.is_set() {
        return;
    }
    profile_type(field, "type is required when seccompProfile is set", out);
    let profile = field.get("localhostProfile");
    if field.get("type").text() == "Localhost" {
        if profile.is_set() {
            validate::descending_path(&profile, out);
        } else {
            out.push(profile.required("must be set when seccomp type is Localhost"));
        }
    } else if profile.is_set() {
        let why = "can only be set when seccomp type is Localhost";
        out.push(profile.invalid_as(field.value().clone(), why));
    }
}

fn apparmor(field: &Field, out: &mut Errors) {
    if !field.is_set() {
        return;
    }
    profile_type(field, "type is required when appArmorProfile is set", out);
    let profile = field.get("localhostProfile");
    if field.get("type").text() != "Localhost" {
        if profile.is_set() {
            out.push(profile.invalid("can only be set when AppArmor type is Localhost"));
        }
        return;
    }
    let text = profile.text();
    if text.trim() != text {
        out.push(profile.invalid("must not be padded with whitespace"));
    } else if text.is_empty() {
        out.push(profile.required("must be set when AppArmor type is Localhost"));
    }
    if text.len() > LOCALHOST_PROFILE_MAX {
        out.push(profile.too_long(LOCALHOST_PROFILE_MAX));
    }
}
