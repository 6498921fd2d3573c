//! DeviceClass.

use super::super::declared::Declared;

/// The DeviceClass's strategy.
pub(in super::super) const DEVICE_CLASS: Declared = Declared { generation: true, ..Declared::NONE };
