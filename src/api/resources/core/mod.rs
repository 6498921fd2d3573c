//! The core group, and events.k8s.io whose one kind shares its objects.

pub(super) mod pod;
