//! Informers, work queue, controller driver and change executor; knows no controller.

pub mod predicates;
