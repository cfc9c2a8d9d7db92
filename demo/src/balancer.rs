//! A real load balancer in front of the servers, where HAProxy is installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use berth_core::api::{BalancerClass, BalancerClassSpec, BalancerDriver, HaProxyAccess, HaProxySocket};
use berth_tests::{Berth, HaProxy, repository};
use kube::{Api, api::PostParams};

/// What to do to see real traffic.
pub(crate) const INSTALL: &str =
    "HAProxy is not installed, so no load balancer is shown: `apt-get install haproxy`, or dnf, and try again";

/// The line of the manifest that declares the backend of the class, as a comment.
const BACKEND: &str = "# - {class: edge,";

/// Starts HAProxy, and tells Berth about it. What it is asked while a server dies, it asks another one.
pub(crate) async fn start(berth: &Berth) -> Result<HaProxy> {
    let haproxy = HaProxy::start_with_repetition().await?;
    let access = HaProxyAccess { addresses: vec![haproxy.address()], socket: HaProxySocket::Master, tls: None };
    let spec = BalancerClassSpec {
        envoy: None,
        driver: BalancerDriver::HaProxy,
        haproxy: Some(access),
        unreachable: None,
        panic_threshold: None,
        allowed_namespaces: None,
    };
    let classes: Api<BalancerClass> = Api::all(berth.client());
    let created = classes.create(&PostParams::default(), &BalancerClass::new("edge", spec)).await;
    created.context("create the BalancerClass edge")?;
    Ok(haproxy)
}

/// The example, or a copy of it in this folder whose servers are behind the BalancerClass, too.
pub(crate) fn manifest(balanced: bool, folder: &Path) -> Result<PathBuf> {
    let path = repository().join("examples/web.yaml");
    if !balanced {
        return Ok(path);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let copy = folder.join("web.yaml");
    fs::write(&copy, with_class(&text)?).with_context(|| format!("write {}", copy.display()))?;
    Ok(copy)
}

fn with_class(text: &str) -> Result<String> {
    ensure!(text.matches(BACKEND).count() == 1, "examples/web.yaml has no line `{BACKEND} ...`, or several");
    Ok(text.replace(BACKEND, BACKEND.trim_start_matches("# ")))
}

#[cfg(test)]
mod tests {
    use berth_core::api::VMDeployment;

    use super::*;

    #[test]
    fn the_copy_of_the_manifest_has_a_backend_more() {
        let text = fs::read_to_string(manifest(false, Path::new("")).unwrap()).unwrap();
        let backends = |text: &str| {
            let document = text.split("\n---\n").find(|part| part.contains("kind: VMDeployment")).unwrap().to_owned();
            let deployment: VMDeployment = serde_saphyr::from_str(&document).unwrap();
            let traffic = deployment.spec.template.spec.traffic.unwrap();
            traffic
                .backends
                .into_iter()
                .map(|backend| (backend.class.is_some(), backend.service.or(backend.name)))
                .collect::<Vec<_>>()
        };
        let (service, class) = ((false, Some("web".to_owned())), (true, Some("web".to_owned())));
        assert_eq!(backends(&text), std::slice::from_ref(&service));
        assert_eq!(backends(&with_class(&text).unwrap()), [service, class]);
        assert!(with_class(&with_class(&text).unwrap()).is_err(), "the line is found once");
    }
}
