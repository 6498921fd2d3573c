//! Roles and bindings.
use super::declared::Declared;
use super::names;
pub(super) const NAMED: Declared = Declared { name: names::path_segment, ..Declared::NONE };
