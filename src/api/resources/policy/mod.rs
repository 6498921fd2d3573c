//! The policy group.

pub(super) mod poddisruptionbudget;
