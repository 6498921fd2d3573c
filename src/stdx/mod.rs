//! Cluster-blind helpers: clock, supervised tasks, back-off, limits, ids.
//!
//! Why a layer: everything above needs these few things in one shape, and a test must be able to
//! replace time and watch tasks. Nothing here knows what a cluster is.

pub mod backoff;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod tasks;
