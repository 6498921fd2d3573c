//! ServiceAccount.

use super::super::columns::{AGE, Cell};
use super::super::declared::Declared;

/// The ServiceAccount's strategy.
pub(in super::super) const SERVICE_ACCOUNT: Declared =
    Declared { columns: &[AGE], cells: &[Cell::Age], ..Declared::NONE };
