//! Flags, file and environment become one validated configuration.
