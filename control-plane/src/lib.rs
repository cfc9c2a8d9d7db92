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
mod control_plane;
mod error;
mod guard;
mod install;
mod kubeconfig;
mod manifest;
mod parts;
mod pki;
mod process;

pub use control_plane::{ControlPlane, Options};
pub use error::{Error, Result};
pub use guard::{GUARD_VARIABLE, Guard};
pub use install::{ApiWarning, InstallReport, WebhookEndpoint};
pub use parts::{Part, free_port};
pub use process::{Launch, Process};
