//! The discovery.k8s.io group.

pub(super) mod endpointslice;
