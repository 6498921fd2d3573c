//! The autoscaling group.

mod convert;
pub(super) mod horizontalpodautoscaler;
