//! The scheduler: queue, cache, cycle and plug-ins.
