//! The one integration binary (each more would link RocksDB again).

mod tidy;
mod schema_gen;
