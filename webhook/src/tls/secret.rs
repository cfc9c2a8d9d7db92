//! The certificate in a Secret that all copies of the webhook share. Whoever comes first makes it, the others take it.

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
use std::{fmt::Debug, time::Duration};

use super::{
    authority::{Bundle, Renewal},
    registration,
};

/// Attempts at writing the Secret while other copies write it, too.
const ATTEMPTS: usize = 5;
/// Everything is looked at again after this, whatever the watches said.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// A Secret with an authority of the webhook's own.
#[derive(Clone)]
pub struct SecretSource {
    /// The API.
    pub client: Client,
    /// Namespace of Secret and Service.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Service that the certificate is made out for.
    pub service: String,
    /// The MutatingWebhookConfiguration that gets the authority's certificate.
    pub configuration: String,
}

/// What is served, and with what.
struct Served {
    tls_crt: String,
    config: RustlsConfig,
}

impl SecretSource {
    /// Waits until there is a certificate that the apiserver trusts; from then until the process ends keeps Secret,
    /// MutatingWebhookConfiguration and what is served in step.
    pub async fn serve(self, process: &Process) -> anyhow::Result<RustlsConfig> {
        let mut served = None;
        let mut failures = 0;
        let due = loop {
            match self.sync(&mut served, Timestamp::now()).await {
                Ok(due) => break due,
                Err(error) => {
                    failures += 1;
                    let delay = Backoff::RECONCILE.delay(failures);
                    tracing::warn!("no certificate yet, trying again in {delay:?}: {error:#}");
                    tokio::time::sleep(delay).await;
                }
            }
        };
        let served = served.context("there is no certificate, although the Secret was read")?;
        let config = served.config.clone();
        let shutdown = process.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(self.follow(served, due)).await });
        Ok(config)
    }

    async fn follow(self, served: Served, mut due: Timestamp) {
        let mut served = Some(served);
        let mut changes = Box::pin(self.changes());
        let mut failures = 0;
        loop {
            let wait = match failures {
                0 => until(due),
                _ => Backoff::RECONCILE.delay(failures),
            };
            tokio::select! {
                _ = changes.next() => (),
                () = tokio::time::sleep(wait) => (),
            }
            match self.sync(&mut served, Timestamp::now()).await {
                Ok(next) => (due, failures) = (next, 0),
                Err(error) => {
                    failures += 1;
                    tracing::warn!("the certificate is not looked after, trying again: {error:#}");
                }
            }
        }
    }

    /// Something happened to the Secret or to the configuration.
    fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        stream::select(changes_of(secrets, &self.secret), changes_of(configurations, &self.configuration))
    }

    /// Brings everything in step and says when the next renewal is due. Trust comes first: only then is a new
    /// certificate served.
    async fn sync(&self, served: &mut Option<Served>, now: Timestamp) -> anyhow::Result<Timestamp> {
        let (bundle, due) = self.bundle(now).await?;
        registration::ensure(&self.client, &self.configuration, &bundle.ca_crt).await?;
        let (certificate, key) = (bundle.tls_crt.as_bytes(), bundle.tls_key.as_bytes());
        match served {
            Some(served) if served.tls_crt == bundle.tls_crt => {}
            Some(served) => {
                served.config.reload_from_config(super::server_config(certificate, key)?);
                served.tls_crt = bundle.tls_crt;
                tracing::info!(secret = self.secret, "serving with a new certificate");
            }
            None => *served = Some(Served { config: super::acceptor(certificate, key)?, tls_crt: bundle.tls_crt }),
        }
        Ok(due)
    }

    /// The Secret's bundle, made or renewed where that is due.
    async fn bundle(&self, now: Timestamp) -> anyhow::Result<(Bundle, Timestamp)> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let names = self.names();
        for _ in 0..ATTEMPTS {
            let stored = api.get_opt(&self.secret).await.with_context(|| self.describe("cannot be read"))?;
            let Some(stored) = stored else {
                let bundle = Bundle::generate(&names, now)?;
                if self.written(api.create(&PostParams::default(), &self.object(&bundle, None)).await)? {
                    tracing::info!(secret = self.secret, "made an authority and a certificate");
                }
                continue;
            };
            let data =
                stored.data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value)).collect();
            let (bundle, renewal) = match Bundle::from_data(&data) {
                Ok(bundle) => {
                    let renewal = bundle.renewal(&names, now);
                    (bundle, renewal)
                }
                Err(error) => {
                    tracing::warn!("{}: {error}", self.describe("is made anew"));
                    (Bundle::generate(&names, now)?, Renewal::Everything)
                }
            };
            if let Renewal::At(due) = renewal {
                return Ok((bundle, due));
            }
            let bundle = bundle.renewed(renewal, &names, now)?;
            let object = self.object(&bundle, stored.metadata.resource_version);
            if self.written(api.replace(&self.secret, &PostParams::default(), &object).await)? {
                tracing::info!(secret = self.secret, ?renewal, "renewed");
            }
        }
        bail!("{}", self.describe(&format!("changed {ATTEMPTS} times while it was looked at")))
    }

    /// Whether this copy wrote it; another one may have been faster.
    fn written(&self, result: kube::Result<Secret>) -> anyhow::Result<bool> {
        match result {
            Ok(_) => Ok(true),
            // AlreadyExists, or another resourceVersion, or deleted meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error).with_context(|| self.describe("cannot be written")),
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

    /// The names by which the Service is reached.
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

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default().min(LOOK_AGAIN)
}

/// A watch of one object, which begins again by itself, ever more slowly while it fails.
fn changes_of<K>(api: Api<K>, name: &str) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher::watcher(api, config).default_backoff().filter_map(async |event| match event {
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!("watch of the certificate: {error}");
            None
        }
    })
}
