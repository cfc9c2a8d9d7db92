//! The program `deployment-controller`.

use std::process::ExitCode;

/// A watch mostly decodes objects, and decoding mostly allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    berth_runtime::run(deployment_controller::run)
}
