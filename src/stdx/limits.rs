//! Every bound of the process, named with its unit.
//!
//! Why one file: a queue, body, loop or cache without a bound is an outage in waiting, and a reader
//! must be able to see them all at once. Each says what happens at the bound.

use std::time::Duration;

/// Largest request body in bytes (upstream's `MaxRequestBodyBytes`); more is a 413 Status.
pub const REQUEST_BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Largest stored object in bytes (etcd's request limit upstream); more is a 413-like Status.
pub const OBJECT_BYTES_MAX: usize = 1536 * 1024;
/// Deepest nesting of a body; deeper is a 400. Below the 128 levels that serde_json and serde_yaml
/// read, so that whatever is stored can be read back, also inside a list or a watch event.
pub const BODY_DEPTH_MAX: usize = 120;
/// Nodes that YAML aliases may expand to; more is a 400 (CVE-2019-11253).
pub const YAML_ALIAS_NODES_MAX: usize = 100_000;
/// Operations in one JSON patch; more is a 413 (CVE-2019-1002100).
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes that the copies of one JSON patch may add up to; more is a 413.
pub const JSON_PATCH_COPY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Bytes of all annotations of one object; more is a 422.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Optimistic attempts of one update or patch before it answers 409: each means that another write
/// of the same object got through, so a hundred writers at once all do.
pub const PATCH_ATTEMPTS_MAX: usize = 100;
/// Events a watcher may be behind before it is cut with 410.
pub const WATCH_BACKLOG_EVENTS_MAX: usize = 10_000;
/// Bytes a watcher may be behind before it is cut with 410.
pub const WATCH_BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a watch lives when the client names no timeout: this to twice this, at random.
pub const WATCH_TIMEOUT_MIN: Duration = Duration::from_secs(30 * 60);
/// How often a watch with bookmarks gets one.
pub const WATCH_BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long history is kept for watches and paged lists; older is a 410.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long an ordinary request may take; longer is a 504.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an Event object lives.
pub const EVENT_TTL: Duration = Duration::from_secs(60 * 60);
/// How long a task may take to stop before it is cut off.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
