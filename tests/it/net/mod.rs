//! The network against the real kernel, inside namespaces that each test makes for itself (none
//! has a default route, so nothing can leave). Needs root; says so and passes otherwise.

pub mod namespace;
mod podnet;
mod proxy;
mod whole;
