//! Commands to try, printed when everything is Ready.

use std::path::Path;

use berth_core::api::Server;
use berth_tests::{Berth, HaProxy, program, repository};
use kube::ResourceExt;

use crate::{balancer, examples::KUBECTL_CACHE, traffic};

/// The text with the commands.
pub(crate) fn text(
    berth: &Berth,
    kubeconfig: &Path,
    servers: &[Server],
    haproxy: Option<&HaProxy>,
) -> anyhow::Result<String> {
    let balanced = haproxy.map_or_else(|| format!("{}.", balancer::INSTALL), balanced);
    let kubectl = &berth.control_plane().assets().kubectl;
    let machine = program("berth-local-machine")?;
    let machine = machine.display();
    let patch = repository().join("examples/web-v3.patch.yaml");
    let patch = patch.display();
    let (last, uid) = servers.last().map(|s| (s.name_any(), s.uid().to_owned())).unwrap_or_default();
    let dir = berth.machines().of(&uid);
    let dir = dir.path().display();
    Ok(format!(
        "\
Try, in another terminal:

  export KUBECONFIG={}
  alias kubectl='{} --cache-dir={}'

  # what there is, and what it waits for
  kubectl get berth
  kubectl get servers -w
  # five servers, then two
  kubectl scale vmdeployment web --replicas=5
  kubectl scale vmdeployment web --replicas=2
  # back to version 1, whatever is declared; Retry brings version 2 back
  kubectl get controllerrevisions -L berth.dev/revision
  kubectl patch vmd web --type=merge -p '{{\"spec\":{{\"rollout\":{{\"request\":{{\"action\":\"Undo\",\"id\":\"1\"}}}}}}}}'
  kubectl patch vmd web --type=merge -p '{{\"spec\":{{\"rollout\":{{\"request\":{{\"action\":\"Retry\",\"id\":\"2\"}}}}}}}}'
  # the bad version once more; see what it waits for, and why
  kubectl patch vmd web --type=merge --patch-file={patch}
  kubectl describe vmd web
  # kill a machine: its traffic is held, it is rebooted and verified anew
  {machine} kill --dir {dir}
  # retire one: drained, destroyed, gone; another takes its place
  kubectl delete server {last}
  # why is it as it is?
  kubectl describe server
  kubectl get endpointslices -l kubernetes.io/service-name=web

Logs: {}/logs
{balanced}
Ctrl-C ends everything and leaves nothing behind.
",
        kubeconfig.display(),
        kubectl.display(),
        kubeconfig.with_file_name(KUBECTL_CACHE).display(),
        berth.control_plane().dir().display(),
    ))
}

/// The URL, and a loop that shows who answers.
fn balanced(haproxy: &HaProxy) -> String {
    let url = traffic::url(haproxy);
    format!(
        "\
Balanced by HAProxy: {url}
See how many requests each version gets, above all while a roll-out pauses, and kill a machine meanwhile:
  for i in $(seq 60); do curl -s {url}/whoami; done | sort | uniq -c"
    )
}
