//! A real Envoy in front of the machines of a test.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use berth_control_plane::{ChildProcess, Guard, Launch};
use serde_json::{Value, json};

use crate::{part::free_address, programs::repository, wait::eventually};

/// It starts in less than a tenth of this.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// An Envoy with the configuration of `docs/howto/envoy.md`, one listener, and a cluster for the backend `web` of the BalancerClass `edge`. It
/// ends when this is dropped or this process dies.
#[derive(Debug)]
pub struct Envoy {
    process: ChildProcess,
    _guard: Guard,
    frontend: SocketAddr,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts a proxy of this name, which asks for its endpoints at this address, and waits until it can be asked how it is. It takes
    /// requests when it has endpoints.
    ///
    /// # Errors
    /// When Envoy is not installed, or does not start.
    pub async fn start(id: &str, servers: SocketAddr) -> Result<Self> {
        let guard = Guard::temporary("berth-envoy")?;
        let (frontend, admin) = (free_address()?, free_address()?);
        fs::write(guard.dir().join("envoy.json"), configuration(id, frontend, admin, servers).to_string())?;
        let arguments =
            ["--config-path", "envoy.json", "--log-level", "warning", "--concurrency", "2", "--disable-hot-restart"];
        let launch = Launch::new("envoy", program()?).args(arguments).current_dir(guard.dir());
        let process = launch.spawn(&guard)?;
        let envoy = Self { process, _guard: guard, frontend, admin };
        envoy.answers().await?;
        Ok(envoy)
    }

    /// Where clients send their requests.
    #[must_use]
    pub fn frontend(&self) -> SocketAddr {
        self.frontend
    }

    /// Its admin interface.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops it at once.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(&self) -> Result<()> {
        self.process.kill9().context("kill Envoy")
    }

    /// Starts it again after [`Self::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.answers().await
    }

    async fn answers(&self) -> Result<()> {
        let answers = eventually("Envoy answers", START_TIMEOUT, async || {
            let reached = tokio::net::TcpStream::connect(self.admin).await;
            if reached.is_ok() { Ok(()) } else { Err(self.process.log_tail()) }
        });
        answers.await
    }
}

/// The path of the program, which is installed once for all checkouts.
fn program() -> Result<String> {
    let output = Command::new(repository().join("scripts/tools.sh")).arg("envoy").stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "install Envoy: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn configuration(id: &str, frontend: SocketAddr, admin: SocketAddr, servers: SocketAddr) -> Value {
    let package = "type.googleapis.com/envoy.extensions.filters";
    let manager = json!({
        "@type": format!("{package}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": format!("{package}.http.router.v3.Router")},
        }],
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": "web", "timeout": "0s", "retry_policy": {"retry_on": "reset-before-request,connect-failure"}},
            }],
        }]},
    });
    let listener = json!({
        "name": "in",
        "address": socket(frontend),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    json!({
        "node": {"id": id, "cluster": "edge"},
        "admin": {"address": socket(admin)},
        "static_resources": {"listeners": [listener], "clusters": [web(), {
            "name": "berth",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "berth",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(servers)}}]}],
            },
        }]},
    })
}

/// The cluster, as `docs/howto/envoy.md` has it.
fn web() -> Value {
    json!({
        "name": "web",
        "type": "EDS",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "2s",
        "ignore_health_on_host_removal": true,
        "common_lb_config": {"update_merge_window": "0s"},
        "eds_cluster_config": {
            "service_name": "edge/web",
            "eds_config": {
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
                "api_config_source": {
                    "api_type": "REST",
                    "transport_api_version": "V3",
                    "cluster_names": ["berth"],
                    "refresh_delay": "0.2s",
                },
            },
        },
    })
}
