//! HAProxy as a load balancer: its servers are Berth's entries.

mod driver;
pub(crate) mod server_lists;

pub use driver::{HaproxyDriver, driver};
