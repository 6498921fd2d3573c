//! What Pods and everything that carries a pod template share: defaults and validation of a
//! PodSpec, and its quality-of-service class.
//!
//! Why apart from the Pod's own strategy: eight kinds carry a template, and a fault in it must read
//! the same in each.

mod containers;
pub(super) mod defaults;
mod env;
mod probes;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod spec;
mod volumes;
pub(super) mod workload;

pub(super) use spec::{pod_annotations, pod_only, template, validate};

/// Whose PodSpec it is: a Pod's own is held to more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Pod,
    Template,
}
