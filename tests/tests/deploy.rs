//! The shipped manifests and examples, on a real kube-apiserver.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output},
};

use berth_tests::{BERTH_NAMESPACE, Berth, Options, Part, repository};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

/// A control plane with everything installed and no program running.
async fn installed() -> Berth {
    Berth::start(Options { parts: vec![], ..Options::default() }).await.unwrap()
}

fn kubectl(berth: &Berth, args: &[&str]) -> Output {
    let control_plane = berth.control_plane();
    let mut command = Command::new(&control_plane.assets().kubectl);
    command.args(args).arg("--kubeconfig").arg(control_plane.admin_kubeconfig());
    // Not in the user's home, because another control plane may get the same port later.
    command.arg("--cache-dir").arg(control_plane.dir().join("kubectl-cache")).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks the API server what users may do.
struct Rights {
    api: Api<SubjectAccessReview>,
}

impl Rights {
    async fn of(&self, user: &str, groups: &[&str], verb: &str, what: &str, namespace: &str, name: &str) -> bool {
        // group/resource/subresource; the core group is empty.
        let mut parts = what.split('/').map(ToOwned::to_owned);
        let attributes = ResourceAttributes {
            group: parts.next(),
            resource: parts.next(),
            subresource: parts.next(),
            verb: Some(verb.into()),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            name: (!name.is_empty()).then(|| name.into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.into()),
            groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = self.api.create(&PostParams::default(), &review).await.unwrap();
        answer.status.unwrap().allowed
    }
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const RESOURCES: [&str; 32] = [
    "berth.dev/servers",
    "berth.dev/servers/status",
    "berth.dev/vmreplicasets",
    "berth.dev/vmreplicasets/status",
    "berth.dev/vmreplicasets/finalizers",
    "berth.dev/vmreplicasets/scale",
    "berth.dev/vmdeployments/scale",
    "berth.dev/vmdeployments",
    "berth.dev/vmdeployments/status",
    "berth.dev/vmdeployments/finalizers",
    "berth.dev/machineclasses",
    "berth.dev/balancerclasses",
    "berth.dev/balancerclasses/status",
    "berth.dev/deployclasses",
    "berth.dev/monitoringclasses",
    "berth.dev/approvals",
    "berth.dev/approvals/status",
    "apps/controllerrevisions",
    "apps/deployments",
    "coordination.k8s.io/leases",
    "discovery.k8s.io/endpointslices",
    "gateway.networking.k8s.io/httproutes",
    "/services",
    "/secrets",
    "/configmaps",
    "/namespaces",
    "/events",
    "events.k8s.io/events",
    "/pods",
    "/serviceaccounts/token",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "rbac.authorization.k8s.io/clusterroles",
];

const READ: &str = "get list watch";

/// Everything that a program may do in any namespace; the test fails when it may do more.
fn allowed(part: Part) -> BTreeMap<&'static str, String> {
    let mut rights = BTreeMap::from([("/events", "create patch".to_owned())]);
    if part != Part::Webhook {
        rights.insert("berth.dev/servers", READ.into());
        rights.insert("berth.dev/servers/status", "patch".into());
    }
    match part {
        Part::Webhook | Part::MonitorController => {}
        Part::ReplicasetController => rights.extend([
            ("berth.dev/servers", format!("{READ} create update patch delete")),
            ("berth.dev/vmreplicasets", format!("{READ} update patch")),
            ("berth.dev/vmreplicasets/status", "update patch".into()),
            ("berth.dev/vmreplicasets/finalizers", "update".into()),
            ("berth.dev/vmreplicasets/scale", "patch".into()),
            ("berth.dev/vmdeployments/scale", "patch".into()),
            ("berth.dev/machineclasses", format!("{READ} patch")),
            ("berth.dev/approvals", READ.into()),
            ("berth.dev/approvals/status", "patch".into()),
        ]),
        Part::DeploymentController => rights.extend([
            ("berth.dev/servers", format!("{READ} patch")),
            ("berth.dev/vmdeployments", READ.into()),
            ("berth.dev/vmdeployments/status", "update patch".into()),
            ("berth.dev/vmdeployments/finalizers", "update".into()),
            ("berth.dev/vmreplicasets", format!("{READ} create update patch")),
            ("berth.dev/vmreplicasets/status", "patch".into()),
            ("apps/controllerrevisions", "list create patch delete".into()),
            ("berth.dev/deployclasses", "get".into()),
            ("berth.dev/monitoringclasses", "get".into()),
            ("/configmaps", "get".into()),
        ]),
        Part::LbController => rights.extend([
            ("discovery.k8s.io/endpointslices", format!("{READ} create update patch delete")),
            ("/services", READ.into()),
            ("berth.dev/balancerclasses", format!("{READ} patch")),
            ("berth.dev/vmdeployments", READ.into()),
            ("berth.dev/vmdeployments/status", "patch".into()),
            ("berth.dev/balancerclasses/status", "patch".into()),
            ("gateway.networking.k8s.io/httproutes", format!("{READ} patch")),
        ]),
    }
    rights
}

#[tokio::test]
async fn each_program_has_the_rights_it_needs_and_no_others() {
    let berth = installed().await;
    let rights = Rights { api: Api::all(berth.client()) };
    let mut wrong = Vec::new();
    for part in Part::ALL {
        let user = format!("system:serviceaccount:{BERTH_NAMESPACE}:{part}");
        let groups = ["system:authenticated", "system:serviceaccounts"];
        let allowed = allowed(part);
        for what in RESOURCES {
            let expected: BTreeSet<_> = allowed.get(what).into_iter().flat_map(|verbs| verbs.split(' ')).collect();
            for verb in VERBS {
                let may = rights.of(&user, &groups, verb, what, "default", "").await;
                if may != expected.contains(verb) {
                    wrong.push(format!("{part}: {verb} {what} in any namespace: {may}"));
                }
            }
        }
        // Rights in Berth's namespace only.
        let webhook = part == Part::Webhook;
        let replicaset = part == Part::ReplicasetController;
        let deployment = part == Part::DeploymentController;
        let has_lease = !webhook;
        for (verb, what, namespace, name, expected) in [
            ("create", "/secrets", BERTH_NAMESPACE, "", webhook),
            ("update", "/secrets", BERTH_NAMESPACE, "webhook-tls", webhook),
            ("watch", "/secrets", BERTH_NAMESPACE, "webhook-tls", webhook),
            ("get", "/secrets", BERTH_NAMESPACE, "berth-ssh", false),
            ("list", "/secrets", BERTH_NAMESPACE, "", false),
            ("get", "/secrets", "berth-credentials", "cloud", replicaset),
            ("list", "/secrets", "berth-credentials", "", false),
            ("get", "/namespaces", "", "kube-system", replicaset),
            ("get", "/namespaces", "", "default", false),
            ("create", "/configmaps", BERTH_NAMESPACE, "", replicaset),
            ("update", "/configmaps", BERTH_NAMESPACE, "replicaset-controller-orphans", replicaset),
            ("get", "/configmaps", BERTH_NAMESPACE, "other", deployment),
            ("list", "coordination.k8s.io/leases", BERTH_NAMESPACE, "", has_lease),
            ("watch", "coordination.k8s.io/leases", BERTH_NAMESPACE, "", has_lease),
            ("create", "coordination.k8s.io/leases", BERTH_NAMESPACE, "", has_lease),
            ("patch", "coordination.k8s.io/leases", BERTH_NAMESPACE, "a", has_lease),
            ("delete", "coordination.k8s.io/leases", BERTH_NAMESPACE, "a", has_lease),
            ("update", "coordination.k8s.io/leases", BERTH_NAMESPACE, "a", false),
            (
                "update",
                "coordination.k8s.io/leases",
                BERTH_NAMESPACE,
                "lb-controller-classes",
                part == Part::LbController,
            ),
            ("get", "coordination.k8s.io/leases", BERTH_NAMESPACE, "lb-controller-classes", part == Part::LbController),
            ("deletecollection", "coordination.k8s.io/leases", BERTH_NAMESPACE, "", false),
            ("patch", "admissionregistration.k8s.io/mutatingwebhookconfigurations", "", "berth", webhook),
            ("patch", "admissionregistration.k8s.io/mutatingwebhookconfigurations", "", "other", false),
        ] {
            let may = rights.of(&user, &groups, verb, what, namespace, name).await;
            if may != expected {
                wrong.push(format!("{part}: {verb} {what} {namespace}/{name}: {may}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    berth.stop().await.unwrap();
}

/// The lists of targets and metrics name every Server and its address, so not every pod may read them. The webhook alone is open,
/// because a policy cannot know the addresses of API servers.
#[test]
fn only_namespaces_with_the_monitoring_label_reach_metrics_and_targets() {
    let text = std::fs::read_to_string(repository().join("deploy/base/network-policies.yaml")).unwrap();
    let policies: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    let mut open = Vec::new();
    for policy in &policies {
        for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
            let expected =
                serde_json::json!([{"namespaceSelector": {"matchLabels": {"berth.dev/monitoring": "true"}}}]);
            if rule["from"] != expected {
                open.push(format!("{}: {}", policy["metadata"]["name"], rule["ports"]));
            }
        }
    }
    assert_eq!(open, [r#""webhook": [{"port":8443,"protocol":"TCP"}]"#]);
}

#[tokio::test]
async fn everything_that_kustomize_builds_is_installed_without_a_warning_and_people_have_their_roles() {
    let berth = installed().await;
    let built = assert_everything_is_installed(&berth);
    assert_pods_are_admitted(&berth, &built);
    assert_roles(&berth).await;
    berth.stop().await.unwrap();
}

/// Returns what kustomize builds.
fn assert_everything_is_installed(berth: &Berth) -> Vec<serde_json::Value> {
    let report = berth.install_report();
    assert_eq!(report.warnings, []);
    let built = succeeded(&kubectl(berth, &["kustomize", repository().join("deploy").to_str().unwrap()]));
    let built: Vec<serde_json::Value> = serde_saphyr::from_multiple(&built).unwrap();
    let titles: BTreeSet<_> = built.iter().map(title).collect();
    let installed: BTreeSet<_> = report.applied.iter().chain(&report.skipped).cloned().collect();
    assert_eq!(titles, installed, "a file is missing in a kustomization.yaml");
    for pod in built.iter().filter(|object| object["kind"] == "Deployment") {
        let container = &pod["spec"]["template"]["spec"]["containers"][0];
        assert!(container["image"].as_str().unwrap().ends_with(":latest"), "{}: no image transform", title(pod));
    }
    built
}

/// Checks that the apiserver's Pod Security admits the pods of the Deployments.
fn assert_pods_are_admitted(berth: &Berth, built: &[serde_json::Value]) {
    let mut pods = Vec::new();
    for deployment in built.iter().filter(|object| object["kind"] == "Deployment") {
        let mut pod = deployment["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = deployment["metadata"]["name"].clone();
        pod["metadata"]["namespace"] = BERTH_NAMESPACE.into();
        pods.push(pod.to_string());
    }
    let file = berth.control_plane().dir().join("pods.yaml");
    std::fs::write(&file, pods.join("\n---\n")).unwrap();
    let created = kubectl(berth, &["create", "--dry-run=server", "-f", file.to_str().unwrap()]);
    assert_eq!(succeeded(&created).lines().count(), 5);
    assert_eq!(String::from_utf8_lossy(&created.stderr), "", "no warning of Pod Security");
}

/// Checks what people with the aggregated roles may do.
async fn assert_roles(berth: &Berth) {
    let rights = Rights { api: Api::all(berth.client()) };
    for (role, verb, what, expected) in [
        ("view", "get", "berth.dev/servers", true),
        ("view", "patch", "berth.dev/vmdeployments", false),
        ("edit", "patch", "berth.dev/vmdeployments/scale", true),
        ("edit", "patch", "berth.dev/servers", true),
        ("edit", "create", "berth.dev/servers", false),
        ("edit", "patch", "berth.dev/servers/status", false),
        ("berth-viewer", "list", "apps/controllerrevisions", true),
        ("berth-operator", "list", "apps/controllerrevisions", true),
        ("edit", "patch", "apps/controllerrevisions", false),
        ("admin", "create", "berth.dev/approvals", false),
        ("berth-approver", "create", "berth.dev/approvals", true),
        ("berth-approver", "delete", "berth.dev/approvals", false),
        ("berth-approver", "patch", "berth.dev/servers", false),
    ] {
        let user = format!("person-{role}");
        let binding = format!("{role}-of-{user}");
        let (role_arg, user_arg) = (format!("--clusterrole={role}"), format!("--user={user}"));
        // A second row for one role finds the binding.
        kubectl(berth, &["create", "rolebinding", &binding, &role_arg, &user_arg, "-n", "default"]);
        let reached = berth_tests::eventually(
            format!("{role}: {verb} {what} is {expected}"),
            std::time::Duration::from_secs(20),
            async || {
                // The role is aggregated once it allows what it certainly allows.
                let bound = rights.of(&user, &[], "get", "berth.dev/servers", "default", "").await;
                let may = rights.of(&user, &[], verb, what, "default", "").await;
                if bound && may == expected { Ok(()) } else { Err(format!("bound: {bound}, allowed: {may}")) }
            },
        );
        reached.await.unwrap();
    }
}

fn title(object: &serde_json::Value) -> String {
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{} {namespace}{}", object["kind"].as_str().unwrap(), meta["name"].as_str().unwrap())
}

#[tokio::test]
async fn the_examples_are_accepted_and_the_patches_change_only_the_application() {
    let berth = installed().await;
    let example = |name: &str| repository().join("examples").join(name).to_str().unwrap().to_owned();
    let applied = kubectl(&berth, &["apply", "-f", &example("web.yaml")]);
    assert_eq!(succeeded(&applied).lines().count(), 3);
    assert_eq!(String::from_utf8_lossy(&applied.stderr), "", "no warnings");
    let get = || -> serde_json::Value {
        serde_json::from_str(&succeeded(&kubectl(&berth, &["get", "vmdeployment", "web", "-o", "json"]))).unwrap()
    };
    let before = get();
    for revision in ["v2", "v3"] {
        let patch = format!("--patch-file={}", example(&format!("web-{revision}.patch.yaml")));
        succeeded(&kubectl(&berth, &["patch", "vmdeployment", "web", "--type=merge", &patch]));
        let after = get();
        assert_eq!(after["spec"]["app"]["revision"], revision);
        assert_ne!(after["spec"]["app"]["artifact"], before["spec"]["app"]["artifact"]);
        assert_eq!(after["spec"]["app"]["command"], before["spec"]["app"]["command"]);
        assert_eq!(after["spec"]["template"], before["spec"]["template"]);
        assert!(Path::new(&example(&format!("artifacts/web-{revision}"))).is_dir());
    }
    berth.stop().await.unwrap();
}
