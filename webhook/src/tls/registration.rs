//! Registers the authority's certificate in the MutatingWebhookConfiguration, so that the apiserver trusts the webhook.

use anyhow::Context as _;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
};
use kube::{
    Api, Client,
    api::{Patch as KubePatch, PatchParams},
};

/// Writes the authority's certificates (PEM) into every webhook of the configuration that has others.
pub(super) async fn ensure(client: &Client, name: &str, ca_pem: &str) -> anyhow::Result<()> {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let configuration = api
        .get(name)
        .await
        .with_context(|| format!("MutatingWebhookConfiguration {name}: cannot read it (is deploy/ applied?)"))?;
    let Some(patch) = patch(configuration.webhooks.as_deref().unwrap_or_default(), ca_pem) else { return Ok(()) };
    api.patch(name, &PatchParams::default(), &KubePatch::<()>::Json(patch)).await.with_context(|| {
        format!("MutatingWebhookConfiguration {name}: cannot write the authority's certificate into it")
    })?;
    tracing::info!(configuration = name, "the apiserver now trusts the authority's certificate");
    Ok(())
}

/// A patch for the webhooks with other certificates; `None` if there are none. It tests their names, so that it fails when
/// the list has been reordered in the meantime.
fn patch(webhooks: &[MutatingWebhook], ca_pem: &str) -> Option<Patch> {
    let desired = ByteString(ca_pem.as_bytes().to_vec());
    let differing =
        webhooks.iter().enumerate().filter(|(_, webhook)| webhook.client_config.ca_bundle.as_ref() != Some(&desired));
    let operations: Vec<_> = differing
        .flat_map(|(index, webhook)| {
            let index = index.to_string();
            let name = PointerBuf::from_tokens(["webhooks", &index, "name"]);
            let bundle = PointerBuf::from_tokens(["webhooks", &index, "clientConfig", "caBundle"]);
            [
                PatchOperation::Test(TestOperation { path: name, value: webhook.name.clone().into() }),
                PatchOperation::Add(AddOperation { path: bundle, value: serde_json::json!(desired) }),
            ]
        })
        .collect();
    (!operations.is_empty()).then_some(Patch(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(name: &str, ca: Option<&str>) -> MutatingWebhook {
        let mut webhook = MutatingWebhook { name: name.into(), ..Default::default() };
        webhook.client_config.ca_bundle = ca.map(|ca| ByteString(ca.as_bytes().to_vec()));
        webhook
    }

    #[test]
    fn only_webhooks_with_another_authority_are_patched() {
        assert_eq!(patch(&[webhook("a", Some("PEM"))], "PEM"), None);
        let list = [webhook("a", Some("PEM")), webhook("b", None), webhook("c", Some("old"))];
        let mut object = serde_json::json!({"webhooks": list});
        json_patch::patch(&mut object, &patch(&list, "PEM").unwrap()).unwrap();
        for index in 0..3 {
            assert_eq!(object["webhooks"][index]["clientConfig"]["caBundle"], "UEVN", "{index}");
        }
    }

    #[test]
    fn the_patch_fails_on_a_reordered_list() {
        let patch = patch(&[webhook("a", None)], "PEM").unwrap();
        let mut object = serde_json::json!({"webhooks": [webhook("b", None), webhook("a", None)]});
        assert!(json_patch::patch(&mut object, &patch).is_err());
    }
}
