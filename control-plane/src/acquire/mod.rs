//! Gets the programs of a control plane: from a folder that the caller names, from the cache, from the official releases,
//! or by building them.

mod assets;
mod build;
mod cache;
mod download;
mod obtain;
mod settings;

pub use assets::Assets;
pub use obtain::acquire;
pub use settings::{ETCD_VERSION, KUBERNETES_VERSION, Progress, Settings};
