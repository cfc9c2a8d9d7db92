//! Creations during which a process ends.

use std::time::Duration;

use berth_iaas::{ProviderError, ProviderMachinePhase};
use tokio::time::{Instant, sleep};

use crate::{
    lab::alone_with_incus,
    project::{LIMIT, Project, running},
};

#[test]
fn an_interrupted_creation_is_repeated() {
    alone_with_incus(async |incus| {
        let project = Project::new(incus, "cut-short");
        incus.build_image("slow", "600M");
        let provider = project.connect();
        let mut request = project.request("cut-1");
        request.image = Some("slow".into());
        let creating = tokio::spawn({
            let (provider, request) = (provider.clone(), request.clone());
            async move { provider.create(&request).await }
        });
        // Waits until its record exists while its disk is not complete.
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = provider.get("cut-1").await.unwrap();
            if let Some(info) = seen {
                assert_eq!(info.phase, ProviderMachinePhase::Starting, "the creation was complete too early: {info:?}");
                break;
            }
            assert!(!creating.is_finished() && Instant::now() < deadline, "its record was not seen");
            sleep(Duration::from_millis(5)).await;
        }
        incus.kill_daemon();
        let error = creating.await.unwrap().unwrap_err();
        assert!(matches!(error, ProviderError::Retryable(_)), "{error:?}");

        let deadline = Instant::now() + LIMIT;
        while let Err(error) = provider.check().await {
            assert!(!error.is_permanent() && Instant::now() < deadline, "incusd does not come back: {error}");
            sleep(Duration::from_millis(50)).await;
        }
        let left = provider.get("cut-1").await.unwrap().unwrap();
        provider.create(&request).await.unwrap();
        let made = running(provider.as_ref(), "cut-1").await;
        assert_ne!(left.id, made.id);
        assert_eq!(provider.list("c").await.unwrap(), [made]);
        provider.delete("cut-1").await.unwrap();
    });
}

#[test]
fn a_creation_waits_for_the_creation_by_another_process() {
    alone_with_incus(async |incus| {
        let project = Project::new(incus, "join");
        incus.build_image("join", "600M");
        let mut request = project.request("join-1");
        request.image = Some("join".into());
        let creating = tokio::spawn({
            let (provider, request) = (project.connect(), request.clone());
            async move { provider.create(&request).await }
        });
        let provider = project.connect();
        let deadline = Instant::now() + LIMIT;
        while provider.get("join-1").await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "its record was not seen");
            sleep(Duration::from_millis(5)).await;
        }
        // The first process is killed; the operation that it began goes on.
        creating.abort();
        let (created, deleted) = tokio::join!(provider.create(&request), async {
            let other = project.connect();
            other.list("c").await.map(|all| all.len())
        });
        assert_eq!((created.unwrap().owner, deleted), (request.owner.clone(), Ok(1)));
        running(provider.as_ref(), "join-1").await;
        provider.delete("join-1").await.unwrap();
        assert_eq!(provider.list("c").await, Ok(Vec::new()));
    });
}
