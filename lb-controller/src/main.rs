//! The program `lb-controller`.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_runtime::run(lb_controller::run)
}
