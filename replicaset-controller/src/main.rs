//! The program `replicaset-controller`.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_runtime::run(replicaset_controller::run)
}
