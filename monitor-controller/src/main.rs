//! The program `monitor-controller`.

use std::process::ExitCode;

/// Watching means decoding, and decoding is mostly allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    berth_runtime::run(monitor_controller::run)
}
