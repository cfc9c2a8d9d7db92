//! Looks at one machine over SSH.

use std::time::Duration;

use berth_core::second_opinion::SampledServer;
use berth_machine::{Connector, ping::ping};
use berth_runtime::ServerCache;

/// How long a machine that accepted the connection may take to answer: it may be busy.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Whether the Server's machine is reached from here. Whatever answers on its SSH port counts, also if it refuses the login. None
/// for a Server that is gone, or whose machine is not known.
pub(crate) async fn look(connector: &dyn Connector, servers: &ServerCache, server: &SampledServer) -> Option<bool> {
    let found = servers.get(Some(&server.namespace), &server.name).filter(|found| found.uid() == server.uid)?;
    let connection = connector.connect(&found).ok()?;
    match ping(connection.machine.as_ref(), PING_LIMIT).await {
        Err(error) if error.is_unreachable() => {
            connector.forget(&found);
            tracing::debug!(server = found.name(), namespace = found.namespace(), %error, "not reached either");
            Some(false)
        }
        _ => Some(true),
    }
}
