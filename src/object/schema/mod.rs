//! The schema table: every type's fields, list kinds, merge keys, protobuf numbers and defaults.
