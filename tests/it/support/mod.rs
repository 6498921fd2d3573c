//! What several test modules need.

pub mod api;
pub mod node;
