//! The scheduling.k8s.io group.

pub(super) mod priorityclass;
