//! The groups that extend the API: apiextensions.k8s.io and apiregistration.k8s.io.

pub(super) mod apiservice;
pub(super) mod customresourcedefinition;
