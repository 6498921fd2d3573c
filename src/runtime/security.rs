//! Who a container runs as and what it may do: pod and container security contexts combined.
//!
//! Why it can refuse: a field that the engine can't honour must fail the container with its name,
//! never be left out.

use k8s_openapi::api::core::v1 as core;

use super::engine::{EngineInfo, Image, Security};
use super::pods::{Model, Unit};

/// The user part of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// "uid", "uid:gid", or "" for the image's.
    pub user: String,
    /// Further groups.
    pub groups: Vec<String>,
}

struct Effective<'a> {
    pod: Option<&'a core::PodSecurityContext>,
    own: Option<&'a core::SecurityContext>,
}

impl<'a> Effective<'a> {
    fn of(model: &'a Model, unit: &'a Unit) -> Self {
        let pod = model.spec().security_context.as_ref();
        Self { pod, own: unit.spec.security_context.as_ref() }
    }

    fn user(&self) -> Option<i64> {
        self.own.and_then(|own| own.run_as_user).or(self.pod.and_then(|pod| pod.run_as_user))
    }

    fn group(&self) -> Option<i64> {
        self.own.and_then(|own| own.run_as_group).or(self.pod.and_then(|pod| pod.run_as_group))
    }

    fn non_root(&self) -> bool {
        let own = self.own.and_then(|own| own.run_as_non_root);
        own.or(self.pod.and_then(|pod| pod.run_as_non_root)).unwrap_or(false)
    }
}

/// Who the container runs as; refused when it must not be root and would be.
pub fn identity(model: &Model, unit: &Unit, image: &Image) -> Result<Identity, String> {
    let effective = Effective::of(model, unit);
    if effective.non_root() {
        not_root(model, unit, effective.user(), &image.user)?;
    }
    let user = match (effective.user(), effective.group()) {
        (Some(user), Some(group)) => format!("{user}:{group}"),
        (Some(user), None) => user.to_string(),
        (None, Some(group)) => {
            let own = image.user.split(':').next().filter(|user| !user.is_empty());
            format!("{}:{group}", own.unwrap_or("0"))
        }
        (None, None) => String::new(),
    };
    let mut groups = Vec::new();
    if let Some(pod) = effective.pod {
        if pod.supplemental_groups_policy.as_deref() == Some("Strict") {
            return Err("securityContext.supplementalGroupsPolicy: Strict is not supported by \
                        this node"
                .to_owned());
        }
        let all = pod.fs_group.iter().chain(pod.supplemental_groups.iter().flatten());
        groups.extend(all.map(ToString::to_string));
    }
    Ok(Identity { user, groups })
}

fn not_root(model: &Model, unit: &Unit, user: Option<i64>, image: &str) -> Result<(), String> {
    let place = format!("(pod: \"{}\", container: {})", model.long_name(), unit.name());
    match user {
        Some(0) => {
            return Err(format!("container's runAsUser breaks non-root policy {place}"));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image.split(':').next().unwrap_or("");
    match name.parse::<i64>() {
        _ if name.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify \
             user is non-root {place}"
        )),
    }
}

/// What the container may do.
pub fn confinement(
    model: &Model,
    unit: &Unit,
    engine: &EngineInfo,
    seccomp_dir: &std::path::Path,
) -> Result<Security, String> {
    let effective = Effective::of(model, unit);
    let own = effective.own;
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Vec<String> {
        let bare = |name: &String| name.trim_start_matches("CAP_").to_owned();
        list.map(|list| list.iter().map(bare).collect()).unwrap_or_default()
    };
    if own.and_then(|own| own.windows_options.as_ref()).is_some() {
        return Err("securityContext.windowsOptions is not supported by this node".to_owned());
    }
    let unmasked_proc = match own.and_then(|own| own.proc_mount.as_deref()) {
        None | Some("Default") => false,
        Some(_) => true,
    };
    Ok(Security {
        privileged,
        cap_add: names(capabilities.and_then(|all| all.add.as_ref())),
        cap_drop: names(capabilities.and_then(|all| all.drop.as_ref())),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        seccomp: seccomp(&effective, privileged, engine, seccomp_dir)?,
        apparmor: apparmor(&effective, engine)?,
        selinux: selinux(&effective),
        unmasked_proc,
    })
}

fn seccomp(
    effective: &Effective<'_>,
    privileged: bool,
    engine: &EngineInfo,
    dir: &std::path::Path,
) -> Result<String, String> {
    let own = effective.own.and_then(|own| own.seccomp_profile.as_ref());
    let profile = own.or(effective.pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    let unconfined = || Ok("unconfined".to_owned());
    let Some(profile) = profile.filter(|_| !privileged) else { return unconfined() };
    match profile.type_.as_str() {
        "Unconfined" => unconfined(),
        "RuntimeDefault" if engine.seccomp => Ok(String::new()),
        "RuntimeDefault" => Err("seccompProfile: the engine has no seccomp".to_owned()),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or("");
            let relative = std::path::Path::new(name);
            let plain = |part| matches!(part, std::path::Component::Normal(_));
            if name.is_empty() || !relative.components().all(plain) {
                return Err(format!("seccompProfile: {name:?} is not a path below the node's"));
            }
            std::fs::read_to_string(dir.join(relative))
                .map_err(|error| format!("cannot load seccomp profile {name:?}: {error}"))
        }
        other => Err(format!("unknown seccomp profile type {other:?}")),
    }
}

fn apparmor(effective: &Effective<'_>, engine: &EngineInfo) -> Result<String, String> {
    let own = effective.own.and_then(|own| own.app_armor_profile.as_ref());
    let profile = own.or(effective.pod.and_then(|pod| pod.app_armor_profile.as_ref()));
    let Some(profile) = profile else { return Ok(String::new()) };
    if profile.type_ == "Unconfined" {
        return Ok(if engine.apparmor { "unconfined".to_owned() } else { String::new() });
    }
    if !engine.apparmor {
        return Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    }
    Ok(profile.localhost_profile.clone().unwrap_or_default())
}

fn selinux(effective: &Effective<'_>) -> Vec<String> {
    let own = effective.own.and_then(|own| own.se_linux_options.as_ref());
    let Some(options) = own.or(effective.pod.and_then(|pod| pod.se_linux_options.as_ref())) else {
        return Vec::new();
    };
    let parts = [
        ("user", &options.user),
        ("role", &options.role),
        ("type", &options.type_),
        ("level", &options.level),
    ];
    let label = |(name, value): (&str, &Option<String>)| {
        value.as_ref().filter(|value| !value.is_empty()).map(|value| format!("{name}:{value}"))
    };
    parts.into_iter().filter_map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::{Value, json};

    fn pod(pod: Value, own: Value) -> Model {
        model(json!({"securityContext": pod,
            "containers": [{"name": "a", "securityContext": own}]}))
    }

    fn user(model: &Model, image: &str) -> Result<Identity, String> {
        identity(model, &model.units[0], &Image { user: image.to_owned(), ..Image::default() })
    }

    #[test]
    fn the_containers_context_wins_over_the_pods() {
        let model = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 5, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]},
                "allowPrivilegeEscalation": false, "seccompProfile": {"type": "RuntimeDefault"}}),
        );
        let who = user(&model, "").unwrap();
        assert_eq!((who.user.as_str(), who.groups), ("5:2", vec!["3".to_owned(), "4".to_owned()]));
        let engine = EngineInfo { seccomp: true, ..EngineInfo::default() };
        let dir = std::path::Path::new("/none");
        let may = confinement(&model, &model.units[0], &engine, dir).unwrap();
        assert_eq!(may.cap_add, ["NET_ADMIN"]);
        assert!(may.no_new_privileges && may.seccomp.is_empty());
        let escape = json!({"type": "Localhost", "localhostProfile": "../x"});
        let model = pod(json!({}), json!({ "seccompProfile": escape }));
        assert!(confinement(&model, &model.units[0], &engine, dir).is_err());
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let model = pod(json!({"runAsNonRoot": true}), json!({}));
        assert!(user(&model, "").unwrap_err().contains("image will run as root"));
        assert!(user(&model, "www").unwrap_err().contains("non-numeric user (www)"));
        assert!(user(&model, "1000:1000").is_ok());
        let model = pod(json!({"runAsNonRoot": true, "runAsUser": 0}), json!({}));
        assert!(user(&model, "7").unwrap_err().contains("breaks non-root policy"));
    }
}
