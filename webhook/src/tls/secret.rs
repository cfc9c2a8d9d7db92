//! The certificate in a Secret that all replicas of the webhook share. The first replica creates it, the others use it.

use anyhow::{Context as _, bail};
use axum_server::tls_rustls::RustlsConfig;
use berth_runtime::{Backoff, Process};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use super::{
    authority::{Bundle, Renewal},
    clients::ClientVerifier,
    config::{reloadable_config, server_config},
    registration,
};

/// Attempts at writing the Secret while other replicas write it, too: more than there are replicas.
const WRITE_ATTEMPTS: usize = 5;
/// Longest time between two checks of Secret and configuration, in case a watch has missed an event.
const RESYNC: Duration = Duration::from_hours(1);

/// A Secret with the webhook's own authority and certificate.
#[derive(Clone)]
pub struct SecretSource {
    /// Client of the apiserver.
    pub client: Client,
    /// Namespace of the Secret and of the Service.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the Service that the certificate is issued for.
    pub service: String,
    /// Name of the MutatingWebhookConfiguration that gets the authority's certificate.
    pub configuration: String,
    /// Which clients are served; none for all.
    pub clients: Option<ClientVerifier>,
}

/// The certificate that the webhook serves with now.
struct ServedCertificate {
    tls_crt: String,
    config: RustlsConfig,
}

impl SecretSource {
    /// Waits until there is a certificate that the apiserver trusts. From then until the process ends, keeps the Secret, the
    /// MutatingWebhookConfiguration and the served certificate consistent.
    pub async fn serve(self, process: &Process) -> anyhow::Result<RustlsConfig> {
        let mut served = None;
        let mut failures = 0;
        let due = loop {
            match self.sync(&mut served, Timestamp::now()).await {
                Ok(due) => break due,
                Err(error) => {
                    failures += 1;
                    let delay = Backoff::RECONCILE.delay(failures);
                    tracing::warn!("no certificate yet, retrying in {delay:?}: {error:#}");
                    tokio::time::sleep(delay).await;
                }
            }
        };
        let served = served.context("there is no certificate, although the Secret has been read")?;
        let config = served.config.clone();
        let shutdown = process.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(self.maintain(served, due)).await });
        Ok(config)
    }

    async fn maintain(self, served: ServedCertificate, mut due: Timestamp) {
        let mut served = Some(served);
        let mut changes = Box::pin(self.changes());
        let mut failures = 0;
        loop {
            let wait = match failures {
                0 => time_until(due),
                _ => Backoff::RECONCILE.delay(failures),
            };
            tokio::select! {
                biased;
                _ = changes.next() => (),
                () = tokio::time::sleep(wait) => (),
            }
            match self.sync(&mut served, Timestamp::now()).await {
                Ok(next) => (due, failures) = (next, 0),
                Err(error) => {
                    failures += 1;
                    tracing::warn!("cannot check or renew the certificate, retrying: {error:#}");
                }
            }
        }
    }

    /// An item for every change of the Secret or of the configuration.
    fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        stream::select(changes_of(secrets, &self.secret), changes_of(configurations, &self.configuration))
    }

    /// Makes Secret, configuration and served certificate consistent, and returns when the next renewal is due. The apiserver
    /// gets a new authority before the webhook serves with its certificate.
    async fn sync(&self, served: &mut Option<ServedCertificate>, now: Timestamp) -> anyhow::Result<Timestamp> {
        let (bundle, due) = self.bundle(now).await?;
        registration::ensure(&self.client, &self.configuration, &bundle.ca_crt).await?;
        let (certificate, key, clients) = (bundle.tls_crt.as_bytes(), bundle.tls_key.as_bytes(), self.clients.as_ref());
        match served {
            Some(served) if served.tls_crt == bundle.tls_crt => {}
            Some(served) => {
                served.config.reload_from_config(server_config(certificate, key, clients)?);
                served.tls_crt = bundle.tls_crt;
                tracing::info!(secret = self.secret, "serving with a new certificate");
            }
            None => {
                let config = reloadable_config(certificate, key, clients)?;
                *served = Some(ServedCertificate { config, tls_crt: bundle.tls_crt });
            }
        }
        Ok(due)
    }

    /// The bundle of the Secret, and when its next renewal is due. Creates or renews it first where that is due now.
    async fn bundle(&self, now: Timestamp) -> anyhow::Result<(Bundle, Timestamp)> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        for _ in 0..WRITE_ATTEMPTS {
            match api.get_opt(&self.secret).await.with_context(|| self.describe("cannot read it"))? {
                None => self.create(&api, now).await?,
                Some(stored) => match self.bundle_of(stored.data.unwrap_or_default(), now)? {
                    (bundle, Renewal::At(due)) => return Ok((bundle, due)),
                    (bundle, renewal) => {
                        let bundle = bundle.renewed(renewal, &self.names(), now)?;
                        self.replace(&api, &bundle, stored.metadata.resource_version, renewal).await?;
                    }
                },
            }
        }
        bail!("{}", self.describe(&format!("changed {WRITE_ATTEMPTS} times while the webhook tried to write it")))
    }

    fn bundle_of(&self, data: BTreeMap<String, ByteString>, now: Timestamp) -> anyhow::Result<(Bundle, Renewal)> {
        let names = self.names();
        match Bundle::from_data(&data.into_iter().map(|(key, ByteString(value))| (key, value)).collect()) {
            Ok(bundle) => {
                let renewal = bundle.renewal(&names, now);
                Ok((bundle, renewal))
            }
            Err(error) => {
                tracing::warn!("{}: {error}", self.describe("replacing its content"));
                Ok((Bundle::generate(&names, now)?, Renewal::Everything))
            }
        }
    }

    async fn create(&self, api: &Api<Secret>, now: Timestamp) -> anyhow::Result<()> {
        let bundle = Bundle::generate(&self.names(), now)?;
        if self.is_written(api.create(&PostParams::default(), &self.object(&bundle, None)).await)? {
            tracing::info!(secret = self.secret, "created an authority and a certificate");
        }
        Ok(())
    }

    async fn replace(
        &self,
        api: &Api<Secret>,
        bundle: &Bundle,
        resource_version: Option<String>,
        renewal: Renewal,
    ) -> anyhow::Result<()> {
        let object = self.object(bundle, resource_version);
        if self.is_written(api.replace(&self.secret, &PostParams::default(), &object).await)? {
            tracing::info!(secret = self.secret, ?renewal, "renewed");
        }
        Ok(())
    }

    /// Whether this replica wrote the Secret; another one may have been faster.
    fn is_written(&self, result: kube::Result<Secret>) -> anyhow::Result<bool> {
        match result {
            Ok(_) => Ok(true),
            // It exists already, has another resourceVersion, or was deleted in the meantime.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error).with_context(|| self.describe("cannot write it")),
        }
    }

    fn object(&self, bundle: &Bundle, resource_version: Option<String>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version,
                labels: Some(
                    [("app.kubernetes.io/name", "webhook"), ("app.kubernetes.io/part-of", "berth")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".into()),
            data: Some(bundle.to_data().into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
            ..Secret::default()
        }
    }

    /// The DNS names of the Service.
    fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.service, &self.namespace);
        vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
        ]
    }

    fn describe(&self, what: &str) -> String {
        format!("Secret {}/{}: {what}", self.namespace, self.secret)
    }
}

fn time_until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default().min(RESYNC)
}

/// Watches one object: an item for every change. A watch that fails starts again, with backoff.
fn changes_of<K>(api: Api<K>, name: &str) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher::watcher(api, config).default_backoff().filter_map(async |event| match event {
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!("watch failed: {error}");
            None
        }
    })
}
