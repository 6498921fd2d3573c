//! The batch group.

pub(super) mod cronjob;
pub(super) mod job;
mod schedule;
