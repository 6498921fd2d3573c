//! Translation between the node's types and the Docker Engine API's.
//!
//! Why apart: these are pure functions, and a mistake here is what "dropped silently" looks like;
//! so each direction has one place and a test.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models;
use jiff::Timestamp;

use crate::runtime::engine::{
    Container, ContainerSpec, EngineError, EngineEvent, EngineInfo, EventKind, Image, Mount,
    Namespace, Propagation, Resources, Result, Security, State, Usage,
};

/// The engine's text without the client library's frame around it.
pub(super) fn error(error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => match status_code {
            404 => EngineError::NotFound(message),
            409 => EngineError::Conflict(message),
            _ => EngineError::Failed(message),
        },
        Error::DockerStreamError { error } => EngineError::Failed(error),
        Error::SocketNotFoundError(path) => {
            EngineError::Unreachable(format!("no Docker socket at {path}"))
        }
        Error::RequestTimeoutError => {
            EngineError::Unreachable("the Docker engine did not answer in time".to_owned())
        }
        other @ (Error::HyperResponseError { .. }
        | Error::HyperLegacyError { .. }
        | Error::IOError { .. }) => {
            EngineError::Unreachable(format!("cannot connect to the Docker engine: {other}"))
        }
        other => EngineError::Failed(other.to_string()),
    }
}

pub(super) fn info(info: models::SystemInfo) -> EngineInfo {
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.contains(&format!("name={name}")));
    EngineInfo {
        version: info.server_version.unwrap_or_default(),
        os_image: info.operating_system.unwrap_or_default(),
        root: info.docker_root_dir.unwrap_or_default(),
        cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        seccomp: has("seccomp"),
        apparmor: has("apparmor"),
        memory_limits: info.memory_limit.unwrap_or(false),
    }
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    // The engine writes the year 1 for "never".
    text.filter(|text| !text.starts_with("0001")).and_then(|text| text.parse().ok())
}

pub(super) fn container(found: models::ContainerInspectResponse) -> Result<Container> {
    let id = found.id.unwrap_or_default();
    let created_at = time(found.created.as_deref()).unwrap_or(Timestamp::UNIX_EPOCH);
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let Some(state) = found.state else {
        return Err(EngineError::Failed(format!("container {id} has no state")));
    };
    Ok(Container {
        id,
        labels: labels.into_iter().collect(),
        image_id: found.image.unwrap_or_default(),
        created_at,
        state: container_state(state, created_at),
    })
}

fn container_state(state: models::ContainerState, created_at: Timestamp) -> State {
    let started_at = time(state.started_at.as_deref());
    let finished_at = time(state.finished_at.as_deref());
    let error = state.error.unwrap_or_default();
    if state.running == Some(true) {
        let started_at = started_at.unwrap_or(created_at);
        return State::Running { pid: state.pid.unwrap_or(0), started_at };
    }
    if started_at.is_none() && finished_at.is_none() && error.is_empty() {
        return State::Created;
    }
    State::Exited {
        code: i32::try_from(state.exit_code.unwrap_or(0)).unwrap_or(i32::MAX),
        started_at,
        finished_at: finished_at.unwrap_or(created_at),
        oom: state.oom_killed.unwrap_or(false),
        error,
    }
}

pub(super) fn event(event: models::EventMessage) -> Option<EngineEvent> {
    let kind = match event.action.as_deref()? {
        "start" => EventKind::Started,
        "die" => EventKind::Died,
        "destroy" => EventKind::Removed,
        _ => return None,
    };
    let actor = event.actor?;
    let labels = actor.attributes.unwrap_or_default().into_iter().collect();
    Some(EngineEvent { id: actor.id?, labels, kind })
}

pub(super) fn image(image: models::ImageInspect) -> Image {
    let config = image.config.unwrap_or_default();
    let filled = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    Image {
        id: image.id.unwrap_or_default(),
        tags: image.repo_tags.unwrap_or_default(),
        digests: image.repo_digests.unwrap_or_default(),
        size: image.size.unwrap_or(0),
        has_command: filled(&config.cmd) || filled(&config.entrypoint),
        user: config.user.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
    }
}

pub(super) fn image_summary(image: models::ImageSummary) -> Image {
    Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        ..Image::default()
    }
}

pub(super) fn usage(stats: models::ContainerStatsResponse) -> Usage {
    let memory = stats.memory_stats.unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    let detail = |names: [&str; 2]| names.iter().find_map(|name| details.get(*name)).copied();
    let used = memory.usage.unwrap_or(0);
    let inactive = detail(["total_inactive_file", "inactive_file"]).unwrap_or(0);
    Usage {
        cpu_nanos: stats
            .cpu_stats
            .and_then(|cpu| cpu.cpu_usage)
            .and_then(|usage| usage.total_usage)
            .unwrap_or(0),
        memory: used,
        working_set: used.saturating_sub(inactive),
        rss: detail(["total_rss", "anon"]).unwrap_or(0),
        page_faults: detail(["total_pgfault", "pgfault"]).unwrap_or(0),
        major_page_faults: detail(["total_pgmajfault", "pgmajfault"]).unwrap_or(0),
        pids: stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

fn namespace(namespace: &Namespace, own: &str, shared: &str) -> Option<String> {
    text(&match namespace {
        Namespace::Own => own.to_owned(),
        Namespace::Shared => shared.to_owned(),
        Namespace::Host => "host".to_owned(),
        Namespace::Of(id) => format!("container:{id}"),
    })
}

fn mount(mount: &Mount) -> models::Mount {
    use models::MountBindOptionsPropagationEnum as Mode;
    let propagation = match mount.propagation {
        Propagation::Private => Mode::RPRIVATE,
        Propagation::FromHost => Mode::RSLAVE,
        Propagation::Both => Mode::RSHARED,
    };
    models::Mount {
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        typ: Some(models::MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(models::MountBindOptions {
            propagation: Some(propagation),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn security_options(security: &Security) -> Vec<String> {
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if !security.seccomp.is_empty() {
        options.push(format!("seccomp={}", security.seccomp));
    }
    if !security.apparmor.is_empty() {
        options.push(format!("apparmor={}", security.apparmor));
    }
    options.extend(security.selinux.iter().map(|label| format!("label={label}")));
    options
}

/// The log driver whose files `logs` reads, with upstream's rotation (10 MiB, 5 files).
fn log_config() -> models::HostConfigLogConfig {
    let options = [("max-size", "10m"), ("max-file", "5")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    models::HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from(options)),
    }
}

fn host_config(spec: &ContainerSpec) -> models::HostConfig {
    let Resources { cpu_shares, cpu_quota, cpu_period, memory, oom_score_adj } = spec.resources;
    let security = &spec.security;
    models::HostConfig {
        cpu_shares: number(cpu_shares),
        cpu_quota: number(cpu_quota),
        cpu_period: number(cpu_period),
        memory: number(memory),
        // Equal to the memory limit: no swap beyond it, as upstream's default.
        memory_swap: number(memory),
        oom_score_adj: Some(oom_score_adj),
        log_config: Some(log_config()),
        network_mode: namespace(&spec.network, "none", "none"),
        ipc_mode: namespace(&spec.ipc, "private", "shareable"),
        pid_mode: namespace(&spec.pid, "", ""),
        uts_mode: (spec.network == Namespace::Host).then(|| "host".to_owned()),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        cap_add: some(&security.cap_add),
        cap_drop: some(&security.cap_drop),
        group_add: some(&spec.groups),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.read_only_root),
        security_opt: Some(security_options(security)),
        masked_paths: security.unmasked_proc.then(Vec::new),
        readonly_paths: security.unmasked_proc.then(Vec::new),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        ..Default::default()
    }
}

pub(super) fn create_body(spec: &ContainerSpec) -> models::ContainerCreateBody {
    models::ContainerCreateBody {
        hostname: text(&spec.hostname),
        user: text(&spec.user),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        env: some(&spec.env),
        cmd: some(&spec.args),
        entrypoint: some(&spec.command),
        image: Some(spec.image.clone()),
        working_dir: text(&spec.working_dir),
        labels: Some(spec.labels.clone().into_iter().collect()),
        stop_signal: text(&spec.stop_signal),
        // The node probes by itself; an image's own health check would only cost.
        healthcheck: Some(models::HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..Default::default()
        }),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_spec_is_dropped() {
        let spec = ContainerSpec {
            name: "n".into(),
            image: "i".into(),
            command: vec!["/c".into()],
            args: vec!["a".into()],
            user: "1:2".into(),
            groups: vec!["3".into()],
            tty: true,
            stdin: true,
            stdin_once: true,
            network: Namespace::Of("s".into()),
            ipc: Namespace::Of("s".into()),
            pid: Namespace::Host,
            sysctls: [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into(),
            mounts: vec![Mount {
                source: "/a".into(),
                target: "/b".into(),
                read_only: true,
                propagation: Propagation::Both,
            }],
            resources: Resources {
                cpu_shares: 102,
                cpu_quota: 5000,
                cpu_period: 100_000,
                memory: 1 << 20,
                oom_score_adj: -997,
            },
            security: Security {
                cap_add: vec!["NET_ADMIN".into()],
                no_new_privileges: true,
                seccomp: "unconfined".into(),
                apparmor: "p".into(),
                selinux: vec!["level:s0".into()],
                read_only_root: true,
                unmasked_proc: true,
                ..Security::default()
            },
            ..ContainerSpec::default()
        };
        let body = serde_json::to_value(create_body(&spec)).unwrap();
        let host = &body["HostConfig"];
        assert_eq!(body["Entrypoint"], serde_json::json!(["/c"]));
        assert_eq!(body["User"], "1:2");
        assert_eq!(body["StdinOnce"], true);
        assert_eq!(host["NetworkMode"], "container:s");
        assert_eq!(host["PidMode"], "host");
        assert_eq!(host["Memory"], 1 << 20);
        assert_eq!(host["MemorySwap"], 1 << 20);
        assert_eq!(host["OomScoreAdj"], -997);
        assert_eq!(host["Mounts"][0]["BindOptions"]["Propagation"], "rshared");
        assert_eq!(host["MaskedPaths"], serde_json::json!([]));
        let options = ["no-new-privileges", "seccomp=unconfined", "apparmor=p", "label=level:s0"];
        assert_eq!(host["SecurityOpt"], serde_json::json!(options));
    }

    #[test]
    fn a_container_that_never_ran_is_told_from_one_that_ended() {
        let never = models::ContainerState {
            running: Some(false),
            started_at: Some("0001-01-01T00:00:00Z".into()),
            finished_at: Some("0001-01-01T00:00:00Z".into()),
            ..Default::default()
        };
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(container_state(never.clone(), at), State::Created);
        let failed = models::ContainerState {
            error: Some("no such file".into()),
            exit_code: Some(127),
            ..never
        };
        assert!(matches!(container_state(failed, at), State::Exited { code: 127, .. }));
    }
}
