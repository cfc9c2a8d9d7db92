//! A real Kubernetes control plane on loopback, for tests and the demo: etcd, kube-apiserver with RBAC, and
//! kube-controller-manager (garbage collector and namespaces), without a kubelet.
//!
//! ```no_run
//! # async fn example() -> berth_control_plane::Result<()> {
//! let control_plane = berth_control_plane::ControlPlane::start(Default::default()).await?;
//! let client = control_plane.admin_client();
//! # drop(client);
//! control_plane.stop().await
//! # }
//! ```

pub mod acquire;
mod components;
mod control_plane;
mod error;
mod guard;
mod install;
mod kubeconfig;
mod manifest;
mod options;
mod pki;
mod ports;
mod process;

pub use components::Component;
pub use control_plane::ControlPlane;
pub use error::{ControlPlaneError, Result};
pub use guard::{GUARD_VARIABLE, Guard};
pub use install::{ApiWarning, InstallReport};
pub use manifest::WebhookEndpoint;
pub use options::ControlPlaneOptions;
pub use ports::free_port;
pub use process::{ChildProcess, Launch};
