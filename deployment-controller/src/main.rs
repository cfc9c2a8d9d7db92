//! The program `deployment-controller`.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_runtime::run(deployment_controller::run)
}
