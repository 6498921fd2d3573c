//! The scheduler: which node runs which pod.
//!
//! A pod waits in the [`queue`]; [`cycle::schedule`] is a pure function of the pod and the node
//! table; the winner is *assumed* in the [`cache`] at once and bound by a request of its own, so
//! that the next decision never waits for the store. Plug-ins ([`plugins`]) filter and score, and
//! each explains its own refusal in upstream's words.
//!
//! Why a table of columns: what every pod is compared with (free CPU, memory, pods) lies in arrays
//! that a scan walks without following pointers; what few pods need lies beside it.
//!
//! # Adding a plug-in
//! One file in `plugins/` that implements [`framework::Plugin`], and one line in `plugins::all`.
//!
//! # What happens when …
//! - a bind is refused: the assumption is forgotten and the pod goes back with back-off;
//! - the process dies: nothing is lost, the truth is `spec.nodeName` in the store;
//! - nothing fits: the pod waits until an event that may help one of the plug-ins that refused it,
//!   and at the latest [`queue::UNSCHEDULABLE_MAX`].

pub mod cache;
pub mod cycle;
pub mod framework;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod run;
