//! The certificates.k8s.io group.

pub(super) mod certificatesigningrequest;
