//! The command line and what runs where.
