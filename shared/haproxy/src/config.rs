//! The `server` lines of HAProxy's configuration.
//!
//! Servers that were added at run time are gone after a reload or restart. The same servers in the configuration are not.

use std::fmt::Write as _;

use crate::{change::NewServer, error::Problem};

/// A server of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredServer {
    /// The server.
    pub server: NewServer,
    /// Whether it takes traffic from the start. Otherwise it begins in maintenance, until it is enabled at run time.
    pub enabled: bool,
}

/// The lines for servers of one backend, in the order of their names, each with a newline at its end. The same servers always make
/// the same text.
pub fn server_lines(servers: &[ConfiguredServer]) -> Result<String, Problem> {
    let mut sorted: Vec<_> = servers.iter().collect();
    sorted.sort_by(|a, b| a.server.id.cmp(&b.server.id));
    let mut text = String::new();
    for ConfiguredServer { server, enabled } in sorted {
        let disabled = if *enabled { "" } else { " disabled" };
        let written = writeln!(text, "    server {} {}{disabled}", server.id.name, server.arguments()?);
        written.map_err(|error| Problem::NotSent(error.to_string()))?;
    }
    Ok(text)
}
