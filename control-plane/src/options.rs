//! Options of a control plane.

use std::time::Duration;

use crate::acquire::Assets;

/// How to start a control plane.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// The programs. `None`: [`acquire`](crate::acquire::acquire) finds them with the settings of the environment.
    pub assets: Option<Assets>,
    /// Whether the apiserver logs every write (metadata only) to [`ControlPlane::audit_log`](crate::ControlPlane::audit_log).
    pub audit: bool,
    /// Whether the apiserver presents a client certificate, which the authority in `ca.crt` of
    /// [`ControlPlane::dir`](crate::ControlPlane::dir) has signed, to every admission webhook.
    pub webhook_client_certificate: bool,
    /// Further arguments of kube-apiserver, such as `--max-requests-inflight=1000`; they override the built-in ones.
    pub apiserver_flags: Vec<String>,
    /// Further arguments of kube-controller-manager; they override the built-in ones, but `--controllers` adds to them.
    pub controller_manager_flags: Vec<String>,
    /// How long each component may take to become ready. Default: 60 s, for machines that are busy with other tests.
    pub start_timeout: Duration,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            assets: None,
            audit: false,
            webhook_client_certificate: false,
            apiserver_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            start_timeout: Duration::from_mins(1),
        }
    }
}
