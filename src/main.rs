//! The executable: argv to configuration to role; the only process exit.

use tikv_jemallocator::Jemalloc;

/// One allocator for Rust and for RocksDB's C++, which gives memory back.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    std::process::exit(clusterd::roles::main(std::env::args_os().collect()));
}
