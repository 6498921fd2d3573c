//! Tests of the status rules.
