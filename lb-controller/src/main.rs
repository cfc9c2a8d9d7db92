//! The program `lb-controller`.

use std::process::ExitCode;

/// A controller mostly decodes objects of its watches, and decoding is mostly allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    berth_runtime::run(lb_controller::run)
}
