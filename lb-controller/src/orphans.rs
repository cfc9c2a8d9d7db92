//! Removes the entries of Servers that no longer exist. The finalizer of a Server keeps it until no load balancer knows it, so
//! such entries are left only when somebody has removed the finalizer.

use anyhow::Result;
use berth_core::api::Server;
use berth_runtime::{ApiError, Backoff, Cache, Context};
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender},
};
use kube::Api;

use crate::{
    balancers::Balancers,
    member::{Member, ServerRef},
};

/// Attempts at one Server before others have their turn: about 20 s. A Server that still fails is suspected again when
/// somebody changes its entries, and when the process starts.
const MAX_ATTEMPTS: u32 = 6;

/// Lets [`run`] look whether the Server is gone.
pub(crate) fn suspect(suspects: &UnboundedSender<ServerRef>, server: ServerRef) {
    // The receiver stops only at shutdown.
    let _ = suspects.unbounded_send(server);
}

/// Removes what load balancers show of those `suspects` that no longer exist, until shutdown.
pub(crate) async fn run(
    ctx: Context,
    servers: Cache<Server>,
    balancers: Balancers,
    mut suspects: UnboundedReceiver<ServerRef>,
) {
    servers.ready().await;
    loop {
        let suspect = tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => return,
            suspect = suspects.next() => suspect,
        };
        let Some(suspect) = suspect else { return };
        for attempt in 1..=MAX_ATTEMPTS {
            let Err(error) = remove_if_gone(&ctx, &servers, &balancers, &suspect).await else { break };
            tracing::warn!(
                server = %suspect.name, namespace = %suspect.namespace, error = format!("{error:#}"),
                "cannot remove a Server that no longer exists from the load balancers"
            );
            tokio::time::sleep(Backoff::RECONCILE.delay(attempt)).await;
        }
    }
}

async fn remove_if_gone(
    ctx: &Context,
    servers: &Cache<Server>,
    balancers: &Balancers,
    suspect: &ServerRef,
) -> Result<()> {
    // Asked first, because it is the cheapest: nearly all suspects exist.
    if is_cached(servers, suspect) {
        return Ok(());
    }
    let member = Member {
        server: suspect.clone(),
        // No version of a Server that is gone can be newer than this decision.
        version: u64::MAX,
        desired: None,
        must_record_version: false,
        held_for: None,
    };
    let is_gone = !balancers.show(&member) && !exists(ctx, suspect).await?;
    if is_gone {
        tracing::info!(
            server = %suspect.name, namespace = %suspect.namespace,
            "removing a Server that no longer exists from the load balancers"
        );
        balancers.apply(&member).await?;
    }
    Ok(())
}

fn is_cached(servers: &Cache<Server>, suspect: &ServerRef) -> bool {
    let cached = servers.get(Some(&suspect.namespace), &suspect.name);
    cached.is_some_and(|server| server.uid() == suspect.uid)
}

/// Whether the Server exists, by its metadata alone: a Server that cannot be decoded exists, too.
async fn exists(ctx: &Context, suspect: &ServerRef) -> Result<bool, ApiError> {
    let api = Api::<Server>::namespaced(ctx.client.clone(), &suspect.namespace);
    let found = api.get_metadata_opt(&suspect.name).await;
    let action = || format!("read Server {}/{}", suspect.namespace, suspect.name);
    let found = found.map_err(|error| ApiError::doing(action())(error))?;
    Ok(found.is_some_and(|server| server.metadata.uid.as_ref() == Some(&suspect.uid)))
}
