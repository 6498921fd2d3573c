//! The node.k8s.io group.

pub(super) mod runtimeclass;
