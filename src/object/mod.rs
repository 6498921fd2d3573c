//! Kubernetes objects as pure values: names, metadata, selectors, quantities, times, Status,
//! the schema table and the four patches.
//!
//! Why values: the server is driven by a table over one ordered value type, so that no kind needs
//! code of its own. Nothing in this folder does IO, reads a clock or knows the store. Maps are
//! ordered by key, so equal objects have equal bytes.

pub mod gvk;
pub mod meta;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;

/// Any JSON value; maps are sorted by key.
pub type Value = serde_json::Value;
/// A JSON object.
pub type Map = serde_json::Map<String, Value>;

pub use gvk::{GroupKind, GroupVersion, Gvk, Gvr};
pub use status::Status;
