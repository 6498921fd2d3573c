//! The container engine as the node sees it: few verbs over closed types.
//!
//! Why a trait: the kubelet's decisions are tested against an in-memory twin, and the engine's own
//! client library stays in one file. Why closed types: a field that is not here can't be dropped
//! silently on its way to the engine; it has to be added, or its pod refused.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;

/// Why the engine did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No such container or image.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the container's state forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The engine does not answer at all.
    #[error("{0}")]
    Unreachable(String),
    /// It answered that it could not.
    #[error("{0}")]
    Failed(String),
}

/// What an engine verb returns.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Facts about the engine and its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineInfo {
    /// As in "20.10.24".
    pub version: String,
    /// As in "Debian GNU/Linux 12 (bookworm)".
    pub os_image: String,
    /// Where the engine keeps images and containers.
    pub root: String,
    /// "1" or "2".
    pub cgroup_version: String,
    /// Whether the default seccomp profile can be used.
    pub seccomp: bool,
    /// Whether AppArmor profiles can be used.
    pub apparmor: bool,
    /// Whether memory limits work at all.
    pub memory_limits: bool,
}

/// Which namespace of its kind a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// Its own (for the network: without any interface but loopback).
    #[default]
    Own,
    /// Its own, which others may join.
    Shared,
    /// The host's.
    Host,
    /// That of another container, by id.
    Of(String),
}

/// How mounts below a bind mount travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host to the container.
    FromHost,
    /// Both ways.
    Both,
}

/// A host path that shows in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// No writes.
    pub read_only: bool,
    /// Of mounts below it.
    pub propagation: Propagation,
}

/// What a container may use; 0 is "no limit of our own".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight of CPU time (cgroup v1 scale, 2 to 262144).
    pub cpu_shares: i64,
    /// Microseconds of CPU time in each period.
    pub cpu_quota: i64,
    /// The period in microseconds.
    pub cpu_period: i64,
    /// Bytes.
    pub memory: i64,
    /// How early the kernel kills it when memory ends.
    pub oom_score_adj: i64,
}

/// What a container's processes may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// All devices and capabilities, no confinement.
    pub privileged: bool,
    /// Capabilities beyond the default set (without "CAP_").
    pub cap_add: Vec<String>,
    /// Capabilities less than the default set; "ALL" for none.
    pub cap_drop: Vec<String>,
    /// No writes to the image's files.
    pub read_only_root: bool,
    /// setuid and file capabilities have no effect.
    pub no_new_privileges: bool,
    /// "unconfined", a profile as JSON, or "" for the engine's default.
    pub seccomp: String,
    /// A profile's name, "unconfined", or "" for the engine's default.
    pub apparmor: String,
    /// SELinux labels, as "user:…", "role:…", "type:…", "level:…".
    pub selinux: Vec<String>,
    /// Nothing under /proc is masked.
    pub unmasked_proc: bool,
}

/// A container to be made. Empty texts and lists mean the image's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique on the engine.
    pub name: String,
    /// The image's id or name.
    pub image: String,
    /// How we find it again.
    pub labels: BTreeMap<String, String>,
    /// Empty where the network namespace is another's.
    pub hostname: String,
    /// The image's entry point is replaced by this.
    pub command: Vec<String>,
    /// The image's arguments are replaced by this.
    pub args: Vec<String>,
    /// "NAME=value".
    pub env: Vec<String>,
    /// The working directory.
    pub working_dir: String,
    /// "uid", "uid:gid" or names.
    pub user: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// Has a terminal.
    pub tty: bool,
    /// Keeps standard input open.
    pub stdin: bool,
    /// Closes standard input after the first attached session.
    pub stdin_once: bool,
    /// The network.
    pub network: Namespace,
    /// Shared memory and semaphores.
    pub ipc: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Host paths.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Confinement.
    pub security: Security,
    /// The signal that ends it, or "".
    pub stop_signal: String,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running {
        /// Its first process on the host.
        pid: i64,
        /// Since.
        started_at: Timestamp,
    },
    /// Over.
    Exited {
        /// The exit code; 128 + n for signal n.
        code: i32,
        /// Since; `None` when it never ran.
        started_at: Option<Timestamp>,
        /// Until.
        finished_at: Timestamp,
        /// The kernel ended it for want of memory.
        oom: bool,
        /// Why it could not even start.
        error: String,
    },
}

/// A container as the engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// The labels it was made with.
    pub labels: BTreeMap<String, String>,
    /// The image's id.
    pub image_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it does.
    pub state: State,
}

/// Something happened to a container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// Its id.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What happened.
    pub kind: EventKind,
}

/// The events that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It started.
    Started,
    /// It ended.
    Died,
    /// It was removed.
    Removed,
}

/// An image on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// "sha256:…".
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Bytes.
    pub size: i64,
    /// The user it runs as, or "".
    pub user: String,
    /// `NAME=value` of the image.
    pub env: Vec<String>,
    /// Whether it says what to run.
    pub has_command: bool,
}

/// How to show oneself to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password; never logged.
    pub password: String,
    /// The registry.
    pub server: String,
}

/// Which part of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogQuery {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines since.
    pub since: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Bytes of one of the two outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// A command in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Has a terminal.
    pub tty: bool,
    /// Reads from us.
    pub stdin: bool,
}

/// A stream of what a process prints.
pub type OutputStream = BoxStream<'static, Result<Output>>;

/// A process we talk to: started by exec, or the container's own.
pub struct Session {
    /// The exec's id, or the container's.
    pub id: String,
    /// What it prints.
    pub output: OutputStream,
    /// What it reads; shut down to send the end of file.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What a container uses at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since its start in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes charged to it.
    pub memory: u64,
    /// Bytes that can't be given back at will.
    pub working_set: u64,
    /// Bytes of anonymous memory.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A container engine.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Facts; fails when the engine does not answer.
    async fn info(&self) -> Result<EngineInfo>;
    /// All containers with this label and value ("" for any), running or not, in full.
    async fn list(&self, label: &str, value: &str) -> Result<Vec<Container>>;
    /// One container.
    async fn inspect(&self, id: &str) -> Result<Container>;
    /// Makes a container, without starting it.
    async fn create(&self, spec: &ContainerSpec) -> Result<String>;
    /// Starts it.
    async fn start(&self, id: &str) -> Result<()>;
    /// Sends its stop signal, and a kill when the grace is over. Returns when it has ended.
    async fn stop(&self, id: &str, grace: Duration) -> Result<()>;
    /// Removes it, running or not.
    async fn remove(&self, id: &str) -> Result<()>;
    /// Changes its limits while it runs.
    async fn update(&self, id: &str, resources: &Resources) -> Result<()>;
    /// Follows what happens to containers with this label and value, from now on. The stream ends
    /// with the connection.
    async fn events(
        &self,
        label: &str,
        value: &str,
    ) -> Result<BoxStream<'static, Result<EngineEvent>>>;
    /// What a container printed.
    async fn logs(&self, id: &str, query: &LogQuery) -> Result<OutputStream>;
    /// Starts a command in it.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Session>;
    /// How a command ended; `None` while it runs.
    async fn exec_exit(&self, exec: &str) -> Result<Option<i32>>;
    /// Sets the size of a command's terminal.
    async fn exec_resize(&self, exec: &str, width: u16, height: u16) -> Result<()>;
    /// Talks to its first process.
    async fn attach(&self, id: &str, stdin: bool) -> Result<Session>;
    /// Sets the size of its terminal.
    async fn attach_resize(&self, id: &str, width: u16, height: u16) -> Result<()>;
    /// What it uses.
    async fn usage(&self, id: &str) -> Result<Usage>;
    /// An image by name or id; `None` when it is not here.
    async fn image(&self, name: &str) -> Result<Option<Image>>;
    /// All images with a name.
    async fn images(&self) -> Result<Vec<Image>>;
    /// Fetches an image.
    async fn pull(&self, name: &str, credentials: Option<&Credentials>) -> Result<()>;
    /// Takes in images from an archive (`docker save`'s form).
    async fn load(&self, archive: Bytes) -> Result<()>;
    /// Removes a name of an image, and the image with its last name.
    async fn remove_image(&self, name: &str) -> Result<()>;
}

/// A shared engine.
pub type SharedEngine = Arc<dyn Engine>;
