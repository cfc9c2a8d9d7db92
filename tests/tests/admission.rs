//! Declarations that would fail for ever are refused at admission, by a real kube-apiserver; what was stored before such a rule
//! stays writable.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::{fs, path::Path, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

fn deploy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// An object, the field of it that is wrong, and the words that a refusal must contain.
struct Case {
    object: Value,
    words: &'static [&'static str],
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap();
    let gvk = GroupVersionKind::gvk("berth.dev", "v1alpha1", kind);
    let plural = if kind == "MachineClass" { "machineclasses".into() } else { format!("{}s", kind.to_lowercase()) };
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    if kind == "MachineClass" {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), "default", &resource)
    }
}

async fn create(client: &Client, object: &Value, dry_run: bool) -> Result<DynamicObject, kube::Error> {
    let typed = serde_json::from_value(object.clone()).unwrap();
    api(client, object).create(&PostParams { dry_run, ..PostParams::default() }, &typed).await
}

/// An object of the kind whose template (or spec, for a Server) has this declaration.
fn declared(kind: &str, name: &str, declaration: &Value) -> Value {
    let mut spec = json!({"machine": {"className": "local"}});
    let selector = json!({"matchLabels": {"app": "web"}});
    let metadata = json!({"labels": {"app": "web"}});
    json_patch::merge(&mut spec, declaration);
    let spec = match kind {
        "Server" => spec,
        "VMReplicaSet" => json!({"selector": selector, "template": {"metadata": metadata, "spec": spec}}),
        _ => json!({"selector": selector, "template": {"metadata": metadata, "spec": spec}, "app": app(&json!({}))}),
    };
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn app(change: &Value) -> Value {
    let mut app = json!({"name": "web", "command": "./run",
        "artifact": {"url": "http://127.0.0.1/w.tgz", "sha256": "b".repeat(64)}});
    json_patch::merge(&mut app, change);
    app
}

fn set(kind: &str, name: &str, change: &Value) -> Value {
    let mut set = declared(kind, name, &json!({}));
    json_patch::merge(&mut set["spec"], change);
    set
}

fn class(name: &str, provider: &str, parameters: &Value) -> Value {
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": name},
        "spec": {"provider": provider, "parameters": parameters}})
}

fn target(labels: &Value) -> Value {
    json!({"monitoring": {"port": 9100, "labels": labels}})
}

fn many(count: usize) -> Value {
    (0..count).map(|i| (format!("label{i}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
}

fn target_labels() -> Vec<Case> {
    const NAME: &[&str] = &["monitoring.labels", "a name consists of 1 to 128 letters, digits and underscores"];
    const RESERVED: &[&str] = &["monitoring.labels", "job, instance, namespace, server and berth_paused are reserved"];
    let labels: [(Value, &[&str]); 12] = [
        (json!({"": "x"}), NAME),
        (json!({"a-b": "x"}), NAME),
        (json!({"1a": "x"}), NAME),
        (json!({"ä": "x"}), NAME),
        (json!({"a\n": "x"}), NAME),
        (json!({"__address__": "10.0.0.1:80"}), NAME),
        (json!({"a".repeat(129): "x"}), NAME),
        (json!({"job": "x"}), RESERVED),
        (json!({"instance": "x"}), RESERVED),
        (json!({"berth_paused": "x"}), RESERVED),
        (json!({"a": "x".repeat(257)}), &["monitoring.labels.a", "may not be more than 256"]),
        (many(17), &["monitoring.labels", "must have at most 16 items"]),
    ];
    let kinds = ["Server", "VMReplicaSet", "VMDeployment"];
    let cases = labels.into_iter().enumerate();
    cases
        .map(|(i, (labels, words))| Case {
            object: declared(kinds[i % 3], &format!("target-{i}"), &target(&labels)),
            words,
        })
        .collect()
}

fn templates() -> Vec<Case> {
    let with = |metadata: Value| {
        let mut metadata = json!({"template": {"metadata": metadata}});
        metadata["template"]["metadata"]["labels"]["app"] = "web".into();
        metadata
    };
    let cases: [(Value, &[&str]); 8] = [
        (with(json!({"labels": {"-bad": "x"}})), &["template.metadata.labels", "a name is an optional DNS subdomain"]),
        (with(json!({"labels": {"": "x"}})), &["template.metadata.labels", "a name is"]),
        (with(json!({"labels": {"A.dev/x/y": "x"}})), &["template.metadata.labels", "a name is"]),
        (with(json!({"labels": {"x".repeat(64): "x"}})), &["template.metadata.labels", "a name is"]),
        (with(json!({"labels": {"a": "not valid"}})), &["template.metadata.labels.a", "should match"]),
        (with(json!({"labels": {"a": "x".repeat(64)}})), &["template.metadata.labels.a", "63"]),
        (with(json!({"annotations": {"a b": "x"}})), &["template.metadata.annotations", "a name is"]),
        (with(json!({"annotations": {"a": "x".repeat(4097)}})), &["template.metadata.annotations.a", "4096"]),
    ];
    let cases = cases.into_iter().enumerate();
    let kind = |i| if i % 2 == 0 { "VMReplicaSet" } else { "VMDeployment" };
    cases.map(|(i, (change, words))| Case { object: set(kind(i), &format!("template-{i}"), &change), words }).collect()
}

fn others() -> Vec<Case> {
    let reserved = json!([{"name": "BERTH_APP_REVISION", "value": "x"}]);
    let both = json!({"traffic": {"backends": [{"service": "b", "class": "edge", "port": 80}]}});
    let nameless = json!({"traffic": {"backends": [{"class": "edge", "port": 80}]}});
    let steps = json!({"rollout": {"steps": [{"weight": 50}, {"pause": {}}, {"weight": 20}]}});
    let service = json!({"rollout": {"steps": [{"weight": 50}]},
        "template": {"spec": {"traffic": {"backends": [{"service": "web", "port": 80}]}}}});
    vec![
        Case {
            object: declared("Server", "env", &json!({"app": app(&json!({"env": reserved}))})),
            words: &["app.env", "begin with BERTH_ are reserved"],
        },
        Case {
            object: set("VMDeployment", "env", &json!({"app": {"env": reserved}})),
            words: &["app.env", "begin with BERTH_ are reserved"],
        },
        Case {
            object: declared("VMReplicaSet", "both", &both),
            words: &["traffic.backends", "either a service", "or the name of a backend of a class"],
        },
        Case {
            object: declared("VMDeployment", "nameless", &nameless),
            words: &["traffic.backends", "the name of a backend of a class"],
        },
        Case { object: set("VMDeployment", "steps", &steps), words: &["rollout.steps", "no weight may be lower"] },
        Case {
            object: set("VMDeployment", "service", &service),
            words: &["rollout.steps", "a weight needs a load balancer that knows weights: name a class"],
        },
        Case {
            object: set("VMDeployment", "route", &with_route("Updated", "Updated")),
            words: &["rollout.httpRoutes", "has to name stableService with subset: Stable"],
        },
        rollout(
            "route",
            &json!({"httpRoutes": [{"name": "web", "stableService": "a", "canaryService": "a"}]}),
            &["two Services"],
        ),
        rollout("bake", &json!({"steps": [{"bake": {"seconds": 9}}, {"servers": 1}]}), &["bake needs an earlier step"]),
        rollout(
            "baseline",
            &json!({"steps": [{"pause": {}}, {"baseline": {"servers": 5}}, {"servers": 5}]}),
            &["rollout.steps", "a baseline needs an earlier step with servers or weight"],
        ),
        rollout(
            "late-baseline",
            &json!({"steps": [{"servers": 1}, {"servers": "100%"}, {"baseline": {"servers": 5}}]}),
            &["rollout.steps", "after servers: 100% no Server has the stable version any more"],
        ),
        rollout("no-baseline", &json!({"steps": [{"servers": 1}, {"baseline": {"servers": 0}}]}), &BASELINE),
        rollout("empty-baseline", &json!({"steps": [{"servers": 1}, {"baseline": {"servers": "0%"}}]}), &BASELINE),
        rollout("much-baseline", &json!({"steps": [{"servers": 1}, {"baseline": {"servers": "101%"}}]}), &BASELINE),
        rollout("approve", &json!({"steps": [{"approve": {"evidence": ["slo"]}}]}), &["evidence", "does not have"]),
        rollout("background", &json!({"background": {"checks": ["slo"]}}), &["rollout.background", "does not have"]),
        rollout("nothing", &json!({"background": {"checks": []}}), &["background.checks", "at least one"]),
        rollout("spread", &json!({"spread": {"topologyKey": "a b"}}), &["spread.topologyKey", "should match"]),
        rollout("kinds", &json!({"steps": [{"servers": 1, "bake": {"seconds": 9}}]}), &["exactly one of servers"]),
        Case {
            object: class("incus", "incus", &json!({"endpoint": "https://10.0.0.1:8443", "endpoints": "x"})),
            words: &["spec.parameters", "provider incus does not know endpoints", "it knows endpoint"],
        },
        Case {
            object: class("local", "local", &json!({"size": 3})),
            words: &["spec.parameters", "provider local does not know size", "it has no parameters"],
        },
    ]
}

/// What is said of a baseline of no Servers, or of more than there are.
const BASELINE: [&str; 2] =
    ["steps[1].baseline.servers", "baseline.servers is a number of at least 1 or a percentage from 1% to 100%"];

/// A weight, and a route between two Services with these subsets.
fn with_route(stable: &str, canary: &str) -> Value {
    let route = json!({"name": "web", "stableService": "web", "canaryService": "web-canary"});
    let backends = json!([{"service": "web", "port": 80, "subset": stable}, {"service": "web-canary", "port": 80, "subset": canary}]);
    json!({"rollout": {"steps": [{"weight": 5}], "httpRoutes": [route]}, "template": {"spec": {"traffic": {"backends": backends}}}})
}

fn rollout(name: &str, rollout: &Value, words: &'static [&'static str]) -> Case {
    Case { object: set("VMDeployment", &format!("rollout-{name}"), &json!({"rollout": rollout})), words }
}

fn good() -> Vec<Value> {
    let meta = json!({"template": {"metadata": {
        "labels": {"app": "web", "example.com/Tier_1": "a.b-c", "empty": ""},
        "annotations": {"Example.com/Note": "anything at all: ä"}}}});
    let steps = json!({
        "rollout": {"steps": [{"weight": 20}, {"pause": {}}, {"weight": 20}, {"servers": 1}, {"weight": 50}], "maxLoadFactor": "2.5"},
        "template": {"spec": {"traffic": {"backends": [{"class": "edge", "name": "web", "port": 80}]}}}});
    let rollout = json!({
        "checks": [{"name": "slo", "source": "main", "query": "up", "condition": "> 0"}],
        "background": {"checks": ["slo"]},
        "spread": {"bakeSeconds": 900},
        "after": [{"namespace": "staging", "name": "web"}],
        "followerNamespaces": ["prod"],
        "alarms": {"source": "main", "names": ["Web Burn"], "matchLabels": {"namespace": "$namespace"}},
        "steps": [{"pause": {}}, {"servers": 1}, {"bake": {"seconds": 9}}, {"approve": {}}, {"approve": {"evidence": ["slo"]}},
            {"servers": "100%"}, {"bake": {"seconds": 9}}],
    });
    let baseline = json!([{"pause": {}}, {"servers": 1}, {"baseline": {"servers": 1}}, {"servers": "50%"},
        {"baseline": {"servers": "100%"}}, {"servers": "100%"}, {"bake": {"seconds": 9}}]);
    vec![
        declared("Server", "good", &target(&json!({"team": "Ä b", "_x9": "", "name_server": "x"}))),
        declared("VMReplicaSet", "good-16", &target(&many(16))),
        set("VMReplicaSet", "good-meta", &meta),
        set("VMDeployment", "good-steps", &steps),
        set("VMDeployment", "good-rollout", &json!({"rollout": rollout})),
        set("VMDeployment", "good-baseline", &json!({"rollout": {"steps": baseline}})),
        set(
            "VMDeployment",
            "good-env",
            &json!({"app": {"env": [{"name": "PORT", "value": "80"}, {"name": "XBERTH_", "value": ""}]}}),
        ),
        class("good-incus", "incus", &json!({"endpoint": "https://10.0.0.1:8443"})),
        class("good-other", "somebody-elses", &json!({"anything": {"goes": [1]}})),
    ]
}

/// The CRDs without any of their rules: what an earlier version may have accepted.
fn lenient(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for rule in ["x-kubernetes-validations", "pattern", "maxLength", "maxProperties"] {
                if map.get(rule).is_some_and(|rule| !rule.is_object() || rule.get("type").is_none()) {
                    map.remove(rule);
                }
            }
            map.values_mut().for_each(lenient);
        }
        Value::Array(items) => items.iter_mut().for_each(lenient),
        _ => {}
    }
}

fn write_lenient_crds(folder: &Path) {
    for entry in fs::read_dir(deploy().join("crds")).unwrap() {
        let path = entry.unwrap().path();
        let mut crd: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        lenient(&mut crd);
        fs::write(folder.join(path.file_name().unwrap()), crd.to_string()).unwrap();
    }
}

/// The rules as they are shipped: the CRDs and the policy for classes.
fn write_shipped(folder: &Path) {
    for entry in fs::read_dir(deploy().join("crds")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(deploy().join("base/machine-classes.yaml"), folder.join("machine-classes.yaml")).unwrap();
}

/// A write that changes something else than what is wrong.
async fn annotate(client: &Client, object: &Value) -> Result<DynamicObject, kube::Error> {
    let patch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    let name = object["metadata"]["name"].as_str().unwrap();
    api(client, object).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_fail_for_ever_is_refused_and_what_is_stored_stays_writable() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let client = control_plane.admin_client();
    let cases: Vec<_> = [target_labels(), templates(), others()].into_iter().flatten().collect();

    let folder = tempfile::tempdir().unwrap();
    write_lenient_crds(folder.path());
    control_plane.install(folder.path(), None).await.unwrap();
    for case in &cases {
        create(&client, &case.object, false).await.unwrap();
    }

    write_shipped(folder.path());
    let report = control_plane.install(folder.path(), None).await.unwrap();
    assert!(report.warnings.is_empty(), "the API server warns: {:?}", report.warnings);
    // A changed CRD and a new policy take effect a moment later.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let mut wrong = Vec::new();
    for Case { object, words } in &cases {
        let mut fresh = object.clone();
        fresh["metadata"]["name"] = format!("{}-2", object["metadata"]["name"].as_str().unwrap()).into();
        match create(&client, &fresh, true).await {
            Ok(_) => wrong.push(format!("accepted: {fresh}")),
            Err(error) => {
                let said = error.to_string();
                wrong.extend(
                    words.iter().filter(|word| !said.contains(**word)).map(|word| format!("no {word:?} in: {said}")),
                );
            }
        }
        if let Err(error) = annotate(&client, object).await {
            wrong.push(format!("no longer writable: {object}: {error}"));
        }
    }
    for object in good() {
        if let Err(error) = create(&client, &object, true).await {
            wrong.push(format!("refused: {object}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong: {wrong:#?}", wrong.len());
    control_plane.stop().await.unwrap();
}
