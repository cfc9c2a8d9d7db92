//! A real Prometheus, and an application that it measures.

use std::{net::Ipv4Addr, path::PathBuf};

use berth_control_plane::{ChildProcess, Launch};
use berth_core::api::MonitoringClass;
use berth_testing::manifest;
use berth_tests::{Archive, HaProxy};
use kube::{Api, api::PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use crate::world::World;

/// An application that counts 20,000 requests a second, of which this share fails.
pub(crate) fn app(world: &World, revision: &str, rate: &str) -> Value {
    let program = format!(
        r#"
import http.server, os, time
begin = time.time()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = "{revision}"
        if self.path == "/metrics":
            n = (time.time() - begin) * 20000
            text = "http_requests_total %d\nhttp_errors_total %d\n" % (n, n * {rate})
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer((os.environ["BERTH_MACHINE_ADDRESS"], 8080), Handler).serve_forever()
"#
    );
    let run = "#!/bin/sh\nexec python3 ./app.py\n";
    let archive = Archive::new().executable("run", run).file("app.py", program).build().unwrap();
    let artifact = world.berth.artifacts().put(&format!("counting-{revision}.tar"), archive);
    let (name, command) = ("web", "sh ./run");
    json!({"name": name, "revision": revision, "command": command, "artifact": {"url": artifact.url, "sha256": artifact.sha256}})
}

/// Starts Prometheus, which reads its targets from monitor-controller and has these alerting rules.
pub(crate) fn start_prometheus(world: &World, port: u16, targets: u16, rules: &Value) -> ChildProcess {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("prometheus")).find(|program| program.is_file());
    let program: PathBuf =
        found.unwrap_or_else(|| panic!("prometheus is not installed: scripts/packages.sh installs it"));
    let dir = world.berth.control_plane().dir().join("prometheus");
    std::fs::create_dir(&dir).unwrap();
    let rules = json!({"groups": [{"name": "test", "interval": "1s", "rules": rules}]});
    std::fs::write(dir.join("rules.yml"), rules.to_string()).unwrap();
    let config = json!({"rule_files": ["rules.yml"], "scrape_configs": [{"job_name": "servers", "scrape_interval": "1s", "scrape_timeout": "1s",
        "http_sd_configs": [{"url": format!("http://127.0.0.1:{targets}/targets"), "refresh_interval": "1s"}]}]});
    std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
    let launch = Launch::new("prometheus", program).current_dir(&dir).args([
        "--config.file=prometheus.yml".to_owned(),
        "--storage.tsdb.path=data".to_owned(),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    launch.spawn(world.berth.control_plane().guard()).unwrap()
}

/// Starts what demands TLS and this token in front of Prometheus. Returns also the certificate of the authority that it is known by.
pub(crate) fn start_front(world: &World, port: u16, behind: u16, token: &str) -> (ChildProcess, String) {
    let dir = world.berth.control_plane().dir().join("front");
    std::fs::create_dir(&dir).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "prometheus-ca");
    let authority = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(dir.join("front.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
         frontend front\n bind 127.0.0.1:{port} ssl crt front.pem\n\
         \x20http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str \"Bearer {token}\" }}\n\
         \x20default_backend prometheus\n\
         backend prometheus\n server prometheus 127.0.0.1:{behind}\n"
    );
    std::fs::write(dir.join("front.cfg"), config).unwrap();
    let program =
        HaProxy::installed().unwrap_or_else(|| panic!("haproxy is not installed: scripts/packages.sh installs it"));
    let launch = Launch::new("front", program).current_dir(&dir).args(["-db", "-f", "front.cfg"]);
    (launch.spawn(world.berth.control_plane().guard()).unwrap(), authority)
}

/// Creates a MonitoringClass.
pub(crate) async fn create_class(world: &World, name: &str, spec: Value) {
    let classes: Api<MonitoringClass> = Api::all(world.berth.client());
    let class = serde_json::from_value(manifest("MonitoringClass", name, spec)).unwrap();
    classes.create(&PostParams::default(), &class).await.unwrap();
}
