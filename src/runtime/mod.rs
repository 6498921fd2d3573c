//! The node agent: pod workers over a container engine.
