//! The admission webhook: computes the next state of a Server on every write.

use berth_runtime::{Arguments, CommonArgs};
use clap::Parser;
use std::process::ExitCode;
use webhook::args::WebhookArgs;

/// Decoding is mostly allocation, on several threads: mimalloc cuts the time of a review by a third.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Berth's admission webhook: computes the next state of a Server on every write, and appends the tasks of that state.
#[derive(Parser)]
#[command(name = "webhook", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    webhook: WebhookArgs,
}

impl Arguments for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }
}

fn main() -> ExitCode {
    berth_runtime::run(|args: Args, process| webhook::run(args.webhook, args.common, process))
}
