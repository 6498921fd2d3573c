//! The one integration binary (each more would link RocksDB again).

mod scenario;
mod runtime;
mod store;
mod tidy;
mod schema_gen;
mod schema_upstream;
mod api;
mod support;
mod net;
