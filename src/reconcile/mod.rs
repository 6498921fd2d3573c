//! Informers, work queue, controller driver and change executor; knows no controller.
