//! The program `replicaset-controller`.

use std::process::ExitCode;

/// Watching is decoding, and decoding is mostly allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    berth_runtime::run(replicaset_controller::run)
}
