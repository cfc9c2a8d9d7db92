//! Logging.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::{CommonArgs, LogFormat};

/// Sends logs to standard error, as the arguments say. Must be called once per process.
pub(crate) fn start(args: &CommonArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_level).with_context(|| {
        format!(
            "--log-level: cannot read {:?}; give a level (error, warn, info, debug, trace) or directives such as info,kube=debug",
            args.log_level
        )
    })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
