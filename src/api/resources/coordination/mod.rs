//! The coordination.k8s.io group.

pub(super) mod lease;
