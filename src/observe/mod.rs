//! Metrics and audit.
