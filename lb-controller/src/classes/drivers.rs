//! Which driver a class has.

use std::sync::Arc;

use berth_core::api::{BalancerClass, BalancerDriver};
use futures::future::BoxFuture;
use kube::Client;

use super::driver::Driver;
use crate::envoy::EnvoyClasses;

/// Makes the driver of a class. The error says what is wrong with the class.
pub type Drivers = Arc<dyn Fn(Arc<BalancerClass>) -> BoxFuture<'static, Result<Arc<dyn Driver>, String>> + Send + Sync>;

/// The drivers of this program. Add a new one here.
#[must_use]
pub fn configured(client: &Client, envoy: &EnvoyClasses) -> Drivers {
    let (client, envoy) = (client.clone(), envoy.clone());
    Arc::new(move |class| {
        let (client, envoy) = (client.clone(), envoy.clone());
        Box::pin(async move {
            match class.spec.driver {
                BalancerDriver::HaProxy => crate::haproxy::driver(&client, &class).await,
                BalancerDriver::Envoy => envoy.driver(&class),
            }
        })
    })
}
