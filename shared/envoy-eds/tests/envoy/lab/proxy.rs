//! A real Envoy.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use berth_envoy_eds::EnvoyAdmin;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, get};

/// How the proxy is configured.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Active health checks of `/health`.
    pub(crate) checks: bool,
    /// Fields of the cluster.
    pub(crate) cluster: Value,
    /// How long the proxy waits for its first endpoints before it takes requests; 0 is for ever.
    pub(crate) init_fetch_timeout: &'static str,
}

impl Config {
    /// As the documentation of the crate recommends.
    pub(crate) fn recommended() -> Self {
        let cluster = json!({
            "common_lb_config": {"update_merge_window": "0s"},
            "ignore_health_on_host_removal": true,
        });
        Self { checks: false, cluster, init_fetch_timeout: "0s" }
    }

    /// The same with active checks.
    pub(crate) fn with_checks() -> Self {
        Self { checks: true, ..Self::recommended() }
    }

    fn cluster(&self) -> Value {
        let source = json!({
            "api_type": "REST", "transport_api_version": "V3", "cluster_names": ["eds"], "refresh_delay": "0.1s",
        });
        let config = json!({
            "resource_api_version": "V3",
            "api_config_source": source,
            "initial_fetch_timeout": self.init_fetch_timeout,
        });
        let mut cluster = json!({
            "name": "web-cluster",
            "type": "EDS",
            "connect_timeout": "5s",
            "eds_cluster_config": {"service_name": "web", "eds_config": config},
        });
        if self.checks {
            cluster["health_checks"] = json!([{
                "timeout": "5s", "interval": "0.2s", "no_traffic_interval": "0.2s",
                "unhealthy_threshold": 3, "healthy_threshold": 1,
                "http_health_check": {"path": "/health"},
            }]);
        }
        for (name, value) in self.cluster.as_object().unwrap() {
            cluster[name] = value.clone();
        }
        cluster
    }

    fn bootstrap(&self, id: &str, eds: SocketAddr) -> Value {
        let socket = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
        let host = json!({"endpoint": {"address": socket(&eds.ip().to_string(), eds.port())}});
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "web-cluster", "timeout": "0s"}});
        let package = "type.googleapis.com/envoy.extensions.filters";
        let manager = json!({
            "@type": format!("{package}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "http_filters": [{
                "name": "router",
                "typed_config": {"@type": format!("{package}.http.router.v3.Router")},
            }],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        });
        json!({
            "node": {"id": id, "cluster": "edge"},
            "admin": {"address": socket("127.0.0.1", 0)},
            "static_resources": {
                "listeners": [{
                    "name": "in",
                    "address": socket("127.0.0.1", 0),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }],
                "clusters": [self.cluster(), {
                    "name": "eds",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": "eds", "endpoints": [{"lb_endpoints": [host]}]},
                }],
            },
        })
    }
}

/// A running Envoy. Dropping it kills it.
pub(crate) struct Proxy {
    child: Child,
    dir: TempDir,
    pub(crate) admin: EnvoyAdmin,
    admin_address: SocketAddr,
}

impl Proxy {
    /// Starts one with this node id, which asks the EDS server at this address.
    pub(crate) async fn start(id: &str, eds: SocketAddr, config: &Config) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("envoy.json"), config.bootstrap(id, eds).to_string()).unwrap();
        let mut command = Command::new("setpriv");
        // It dies with this thread, however that ends.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program());
        command.args(["--config-path", "envoy.json", "--admin-address-path", "admin", "--log-level", "warning"]);
        command.args(["--concurrency", "2", "--disable-hot-restart"]);
        let log = File::create(dir.path().join("log")).unwrap();
        let child = command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap();
        let admin_address = eventually("the admin interface of Envoy", async || {
            let text = fs::read_to_string(dir.path().join("admin")).map_err(|_| tail(dir.path()))?;
            text.trim().parse::<SocketAddr>().map_err(|error| format!("{text}: {error}"))
        })
        .await;
        let admin = EnvoyAdmin::new(admin_address, Duration::from_secs(10));
        Self { child, dir, admin, admin_address }
    }

    /// Where it takes requests, when it does.
    pub(crate) async fn listener(&self) -> SocketAddr {
        eventually("Envoy is ready", async || {
            self.ready().await.map_err(|error| format!("{error}\n{}", self.log()))?;
            let text = get(self.admin_address, "/listeners?format=json").await?;
            let listeners: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
            let port = socket["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
            port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).ok_or(text)
        })
        .await
    }

    /// Whether it takes requests.
    pub(crate) async fn ready(&self) -> Result<String, String> {
        get(self.admin_address, "/ready").await
    }

    /// Freezes it, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        tail(self.dir.path())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// The path of the program, which is installed once for all checkouts.
fn program() -> String {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/tools.sh");
    let output = Command::new(tools).arg("envoy").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "install Envoy: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
