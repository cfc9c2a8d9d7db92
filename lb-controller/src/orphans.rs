//! Endpoints of Servers that do not exist any more. A Server's finalizer keeps it until no load balancer knows it, so these are
//! left only where somebody took the finalizer away.

use std::sync::Arc;

use berth_core::api::Server;
use berth_runtime::{Backoff, Cache, Context};
use kube::Api;
use tokio::sync::mpsc;

use crate::{
    balancer::{BalancerError, LoadBalancer, Member},
    slices::{EndpointSlices, ServerId},
};

/// Attempts at one orphan, before others have their turn. It is found again when its slice changes, and at the next start.
const ATTEMPTS: u32 = 6;

/// Removes the endpoints of Servers that are gone, among those that are named to it, until shutdown.
pub(crate) async fn run(
    ctx: Context,
    servers: Cache<Server>,
    slices: Arc<EndpointSlices>,
    mut suspects: mpsc::UnboundedReceiver<ServerId>,
) {
    servers.ready().await;
    loop {
        let suspect = tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            suspect = suspects.recv() => suspect,
        };
        let Some(suspect) = suspect else { return };
        for attempt in 1..=ATTEMPTS {
            match clear(&ctx, &servers, &slices, &suspect).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(server = %suspect.name, namespace = %suspect.namespace, %error, "cannot clear away an endpoint without a Server");
                    tokio::time::sleep(Backoff::RECONCILE.delay(attempt)).await;
                }
            }
        }
    }
}

async fn clear(
    ctx: &Context,
    servers: &Cache<Server>,
    slices: &EndpointSlices,
    suspect: &ServerId,
) -> Result<(), BalancerError> {
    let member = Member {
        namespace: suspect.namespace.clone(),
        name: suspect.name.clone(),
        uid: suspect.uid.clone(),
        // Nothing newer can come.
        version: u64::MAX,
        target: None,
        fence: false,
    };
    let gone = !slices.shows(&member) && !is_cached(servers, suspect) && !exists(ctx, suspect).await?;
    if gone {
        tracing::info!(server = %suspect.name, namespace = %suspect.namespace, "removing the endpoint of a Server that is gone");
        slices.apply(&member).await?;
    }
    Ok(())
}

fn is_cached(servers: &Cache<Server>, suspect: &ServerId) -> bool {
    let known = servers.get(Some(&suspect.namespace), &suspect.name);
    known.is_some_and(|server| server.metadata.uid.as_ref() == Some(&suspect.uid))
}

/// By its metadata: a Server that cannot be decoded is not gone.
async fn exists(ctx: &Context, suspect: &ServerId) -> Result<bool, BalancerError> {
    let api = Api::<Server>::namespaced(ctx.client.clone(), &suspect.namespace);
    let found = api.get_metadata_opt(&suspect.name).await.map_err(|error| BalancerError::Unavailable {
        what: format!("reading Server {}/{}", suspect.namespace, suspect.name),
        why: error.to_string(),
    })?;
    Ok(found.is_some_and(|server| server.metadata.uid.as_ref() == Some(&suspect.uid)))
}
