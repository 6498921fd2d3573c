//! The flowcontrol.apiserver.k8s.io group.

pub(super) mod flowschema;
pub(super) mod prioritylevelconfiguration;
