//! The networking.k8s.io group.

pub(super) mod ingress;
pub(super) mod ingressclass;
pub(super) mod ipaddress;
pub(super) mod networkpolicy;
pub(super) mod servicecidr;
