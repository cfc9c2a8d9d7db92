//! A fleet as people want it.

use berth_core::api::{FailoverAction, GatePoint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Dice, ports::APP_PORT};

/// The revision of the code that is declared first.
pub(super) const FIRST: &str = "r0";
/// The names of fleets.
const NAMES: [&str; 2] = ["web", "api"];
/// The namespaces of fleets.
const NAMESPACES: [&str; 2] = ["default", "shop"];

/// The steps of roll-outs that people declare. Pauses are longer than clocks may be apart.
pub(super) const PLANS: [&str; 5] = [
    "[]",
    r#"[{"servers": 1}, {"pause": {"seconds": 90}}, {"servers": "100%"}]"#,
    r#"[{"servers": 1}, {"pause": {}}, {"servers": "50%"}, {"approve": {}}, {"servers": "100%"}]"#,
    r#"[{"servers": "50%"}, {"bake": {"seconds": 90}}, {"servers": "100%"}]"#,
    r#"[{"servers": 2}, {"servers": "100%"}, {"bake": {"seconds": 90}}]"#,
];

/// What does not change of a fleet, and what it begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Shape {
    /// Whether it is a VMReplicaSet without a VMDeployment: its code is given to new Servers only.
    pub is_plain_set: bool,
    /// Whether it is in a namespace of its own.
    pub is_elsewhere: bool,
    /// Whether another size of machines replaces Servers, with one more of them meanwhile.
    pub replaces: bool,
    /// Whether failover reboots a machine first.
    pub reboots: bool,
    /// Whether failover keeps machines for diagnosis.
    pub retains: bool,
    /// Whether new code is brought to half of its machines ahead of their turn.
    pub stages_ahead: bool,
    /// Its gates at first.
    pub gates: Vec<GatePoint>,
}

impl Shape {
    /// Draws one.
    pub(crate) fn draw(dice: &Dice) -> Self {
        let gates = if dice.chance(0.25) { draw_gates(dice) } else { Vec::new() };
        Self {
            is_plain_set: dice.chance(0.15),
            is_elsewhere: dice.chance(0.15),
            replaces: dice.chance(0.3),
            reboots: dice.chance(0.3),
            retains: dice.chance(0.2),
            stages_ahead: false,
            gates,
        }
    }
}

/// Draws which gates there are.
pub(super) fn draw_gates(dice: &Dice) -> Vec<GatePoint> {
    GatePoint::ALL.into_iter().filter(|_| dice.chance(0.3)).collect()
}

/// What people have declared last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether the fleet is declared at all.
    pub(crate) exists: bool,
    /// Whether its Service is declared.
    pub(crate) has_service: bool,
    pub(crate) replicas: usize,
    pub(crate) revision: String,
    pub(crate) package: String,
    pub(crate) flavor: String,
    pub(crate) paused: bool,
    pub(crate) partition: usize,
    pub(crate) most: Option<usize>,
    pub(crate) gates: Vec<GatePoint>,
    pub(crate) action: FailoverAction,
    /// How code is rolled out, where that is not as usual.
    pub(crate) code: WantedRollout,
}

/// How people want code to be rolled out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedRollout {
    /// Which of [`PLANS`].
    pub(crate) plan: usize,
    pub(crate) paused: bool,
    pub(crate) rolls_back: bool,
    /// Whether a person has made a request, such as to undo what is declared.
    pub(crate) is_steered: bool,
}

impl WantedRollout {
    /// Whether it may keep a fleet from what is declared until a person acts.
    pub(crate) fn may_hold(&self) -> bool {
        self.plan > 0 || self.paused || self.rolls_back || self.is_steered
    }
}

/// A fleet, and how people want it.
pub(crate) struct Fleet {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) wanted: Wanted,
    /// The declarations so far: what was stored, and what was wanted then.
    pub(super) history: Vec<(Value, Wanted)>,
    /// Whether failover was ever allowed to lower `replicas`.
    pub(crate) may_shrink: bool,
}

impl Fleet {
    pub(super) fn new(number: usize, shape: Shape, replicas: usize) -> Self {
        let wanted = Wanted {
            exists: true,
            has_service: true,
            replicas,
            revision: FIRST.into(),
            package: "0".into(),
            flavor: "f0".into(),
            paused: false,
            partition: 0,
            most: None,
            gates: shape.gates.clone(),
            action: FailoverAction::Replace,
            code: WantedRollout::default(),
        };
        let namespace = NAMESPACES[usize::from(shape.is_elsewhere)];
        Self { namespace, name: NAMES[number % NAMES.len()], shape, wanted, history: Vec::new(), may_shrink: false }
    }

    pub(super) fn service(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name},
               "spec": {"ports": [{"name": "http", "port": 80}]}})
    }

    /// Plural name of what declares the fleet.
    pub(super) fn kind(&self) -> &'static str {
        if self.shape.is_plain_set { "VMReplicaSet" } else { "VMDeployment" }
    }

    /// The whole declaration.
    pub(super) fn declaration(&self) -> Value {
        let (name, traffic) = (
            self.name,
            json!({"backends": [{"service": self.name, "port": 80, "portName": "http"}], "drain": {"seconds": 2}}),
        );
        let mut spec = json!({
            "replicas": self.wanted.replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                         "spec": {"machine": {"className": "small"}, "packages": self.packages(), "traffic": traffic,
                                  "healthCheck": {"httpGet": {"port": APP_PORT, "path": "/"}, "periodSeconds": 2},
                                  "reachability": {"periodSeconds": 2, "timeoutSeconds": 1, "unreachableAfterSeconds": 6}}},
            "failover": self.failover()
        });
        if self.shape.is_plain_set {
            spec["template"]["spec"]["app"] = self.app();
        } else {
            spec["app"] = self.app();
            if self.shape.stages_ahead {
                spec["rollout"] = json!({"stageAhead": "50%"});
            }
        }
        if !self.wanted.gates.is_empty() {
            spec["template"]["spec"]["gates"] = self.gates();
        }
        if self.shape.replaces {
            spec["template"]["spec"]["machine"]["flavor"] = self.wanted.flavor.clone().into();
            spec["updateStrategy"] = json!({"type": "Replace", "maxSurge": 1});
        }
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": self.kind(), "metadata": {"name": name}, "spec": spec})
    }

    pub(super) fn packages(&self) -> Value {
        json!([{"name": "jq", "version": self.wanted.package, "apt": {}}])
    }

    pub(super) fn app(&self) -> Value {
        let artifact = json!({"url": format!("http://a/{}.tar", self.wanted.revision), "sha256": "ab".repeat(32)});
        json!({"name": self.name, "revision": self.wanted.revision, "command": "./run", "artifact": artifact})
    }

    pub(super) fn gates(&self) -> Value {
        self.wanted.gates.iter().map(|gate| json!({"before": gate})).collect()
    }

    pub(super) fn failover(&self) -> Value {
        let mut failover = json!({"waitSeconds": 20, "action": self.wanted.action});
        if self.shape.reboots {
            failover["reboot"] = json!({"cooldownSeconds": 60});
        }
        if self.shape.retains {
            failover["retain"] = json!({"max": 1, "expirySeconds": 120});
        }
        failover
    }
}
