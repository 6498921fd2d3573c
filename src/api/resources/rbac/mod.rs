//! The rbac.authorization.k8s.io group.
//!
//! Why a RoleBinding's `roleRef` is fixed: changing it would hand on rights that the binding's
//! subjects were never granted by anyone who holds them.

pub(super) mod binding;
pub(super) mod role;
