//! The program `monitor-controller`.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_runtime::run(monitor_controller::run)
}
