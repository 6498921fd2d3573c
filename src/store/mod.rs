//! The replicated, revisioned key-value store. It knows no Kubernetes kind.
