//! The one integration binary (each more would link RocksDB again).

mod api;
mod e2e;
mod host;
mod net;
mod runtime;
mod scenario;
mod schema_gen;
mod schema_upstream;
mod store;
mod support;
mod tidy;
