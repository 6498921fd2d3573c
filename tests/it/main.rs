//! The one integration binary (each more would link RocksDB again).

mod store;
mod tidy;
mod schema_gen;
mod net;
