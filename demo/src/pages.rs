//! The pages of the web servers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_core::api::Server;
use kube::ResourceExt as _;

/// Requests the pages `/` and `/whoami` of every server, and prints the responses.
pub(crate) async fn request(servers: &[Server]) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    for server in servers {
        let machine = server.status.as_ref().and_then(|status| status.machine.as_ref());
        let address = machine.and_then(|machine| machine.address.as_deref());
        let address = address.with_context(|| format!("{} has no address", server.name_any()))?;
        let mut answers = Vec::new();
        for path in ["", "whoami"] {
            let url = format!("http://{address}:8080/{path}");
            let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            answers.push(answer.with_context(|| format!("ask {url}"))?.text().await?);
        }
        let page = answers[0].lines().find(|line| line.starts_with("<h1>")).unwrap_or_default();
        println!("  GET http://{address}:8080/  {page}  [{}]", answers[1].trim());
    }
    Ok(())
}
