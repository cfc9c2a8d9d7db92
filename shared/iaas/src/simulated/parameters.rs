//! Parameters of the provider `simulated`.

use std::time::Duration;

use berth_core::api::MachineClassSpec;
use serde::Deserialize;
use serde_json::Value;

use super::random::Draw;
use crate::{
    driver::refuse_unknown_parameters,
    error::{ProviderError, Result},
};

/// All parameters; a class with any other is refused.
const KNOWN: [&str; 11] = [
    "seed",
    "account",
    "capacity",
    "latency",
    "boot",
    "lifetime",
    "failureRate",
    "lostAnswerRate",
    "repeatRate",
    "hang",
    "broken",
];

/// The parameters of a MachineClass. All are optional; without them every call succeeds at once.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SimulatedParameters {
    /// Equal seeds give equal random events for the same call of the same Server, whatever the order of the calls.
    pub(super) seed: u64,
    /// Classes of the same account see the same machines and share the capacity.
    pub(super) account: String,
    /// Quota of the account, in machines.
    pub(super) capacity: Option<usize>,
    /// How long calls take.
    pub(super) latency: CallLatency,
    /// How long a machine boots.
    pub(super) boot: Distribution,
    /// How long a machine runs until it stops by itself; none for ever.
    pub(super) lifetime: Option<Distribution>,
    /// Share of calls (0 to 1) that fail without any effect.
    pub(super) failure_rate: f64,
    /// Share of calls (0 to 1) that succeed, but whose answer is lost.
    pub(super) lost_answer_rate: f64,
    /// Share of calls (0 to 1) that arrive twice.
    pub(super) repeat_rate: f64,
    /// Calls that never answer.
    pub(super) hang: Vec<ProviderCall>,
    /// The error of the check.
    pub(super) broken: Option<CheckFailure>,
}

/// How long each call takes; `default` is for the calls that are not named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CallLatency {
    default: Distribution,
    check: Option<Distribution>,
    create: Option<Distribution>,
    get: Option<Distribution>,
    reboot: Option<Distribution>,
    delete: Option<Distribution>,
    list: Option<Distribution>,
}

impl CallLatency {
    fn of(&self, call: ProviderCall) -> Option<Distribution> {
        match call {
            ProviderCall::Check => self.check,
            ProviderCall::Create => self.create,
            ProviderCall::Get => self.get,
            ProviderCall::Reboot => self.reboot,
            ProviderCall::Delete => self.delete,
            ProviderCall::List => self.list,
        }
    }
}

/// A call of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ProviderCall {
    Check,
    Create,
    Get,
    Reboot,
    Delete,
    List,
}

impl ProviderCall {
    const ALL: [Self; 6] = [Self::Check, Self::Create, Self::Get, Self::Reboot, Self::Delete, Self::List];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Create => "create",
            Self::Get => "get",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// The error of a provider's check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum CheckFailure {
    Configuration,
    Credentials,
    Unavailable,
}

/// A distribution of durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Distribution {
    /// Always this duration.
    #[serde(rename = "fixedMs")]
    Fixed(f64),
    /// Uniform between the two.
    #[serde(rename = "uniformMs")]
    Uniform(f64, f64),
    /// Exponential with this mean.
    #[serde(rename = "exponentialMs")]
    Exponential(f64),
    /// Log-normal, which has a long tail.
    #[serde(rename = "logNormalMs")]
    LogNormal { median: f64, p99: f64 },
}

impl Default for Distribution {
    fn default() -> Self {
        Self::Fixed(0.0)
    }
}

/// The 99 % quantile of the standard normal distribution.
const Z99: f64 = 2.326_347_9;
/// The longest duration, one day: tests are shorter.
const LONGEST: f64 = 86_400_000.0;

impl Distribution {
    pub(super) fn draw(self, mut draw: Draw) -> Duration {
        let milliseconds = match self {
            Self::Fixed(at) => at,
            Self::Uniform(from, to) => from + (to - from) * draw.unit(),
            Self::Exponential(mean) => -mean * (1.0 - draw.unit()).ln(),
            Self::LogNormal { median, p99 } => median * (draw.normal() * (p99 / median).ln() / Z99).exp(),
        };
        Duration::from_secs_f64(milliseconds.clamp(0.0, LONGEST) / 1000.0)
    }

    /// Why its numbers are not valid.
    fn mistake(self) -> Option<&'static str> {
        let is_duration = |ms: f64| (0.0..=LONGEST).contains(&ms);
        let is_valid = match self {
            Self::Fixed(ms) | Self::Exponential(ms) => is_duration(ms),
            Self::Uniform(from, to) => is_duration(from) && is_duration(to) && from <= to,
            Self::LogNormal { median, p99 } => median > 0.0 && median <= p99 && is_duration(p99),
        };
        (!is_valid).then_some("milliseconds are from 0 to 86400000, in rising order, and a median is above 0")
    }
}

impl SimulatedParameters {
    pub(super) fn read(class: &MachineClassSpec) -> Result<Self> {
        refuse_unknown_parameters(class, &KNOWN)?;
        let value = Value::Object(class.parameters.clone());
        let read: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            ProviderError::Configuration(format!("spec.parameters.{}: {}", error.path(), error.inner()))
        })?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<()> {
        let rates = self.rates().into_iter().filter(|(_, rate)| !(0.0..=1.0).contains(rate));
        let mut mistakes = rates.map(|(name, rate)| format!("{name}: {rate} is not a share; 0 to 1 is allowed"));
        let latencies = ProviderCall::ALL
            .into_iter()
            .filter_map(|call| Some((format!("latency.{}", call.name()), self.latency.of(call)?)));
        let others = [("latency.default".to_owned(), self.latency.default), ("boot".to_owned(), self.boot)];
        let lifetimes = self.lifetime.map(|drawn| ("lifetime".to_owned(), drawn));
        let mut durations = latencies.chain(others).chain(lifetimes);
        let wrong = durations.find_map(|(name, drawn)| drawn.mistake().map(|mistake| format!("{name}: {mistake}")));
        match mistakes.next().or(wrong) {
            Some(mistake) => Err(ProviderError::Configuration(format!("spec.parameters.{mistake}"))),
            None => Ok(()),
        }
    }

    /// Whether no random number has any effect.
    pub(super) fn is_deterministic(&self) -> bool {
        let durations =
            ProviderCall::ALL.map(|call| self.latency(call)).into_iter().chain([self.boot]).chain(self.lifetime);
        durations.into_iter().all(|d| matches!(d, Distribution::Fixed(_)))
            && self.rates().iter().all(|(_, rate)| *rate <= 0.0)
    }

    fn rates(&self) -> [(&'static str, f64); 3] {
        [
            ("failureRate", self.failure_rate),
            ("lostAnswerRate", self.lost_answer_rate),
            ("repeatRate", self.repeat_rate),
        ]
    }

    pub(super) fn latency(&self, call: ProviderCall) -> Distribution {
        self.latency.of(call).unwrap_or(self.latency.default)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: &Value) -> Result<SimulatedParameters> {
        let class = json!({"provider": "simulated", "parameters": parameters});
        SimulatedParameters::read(&serde_json::from_value(class).unwrap())
    }

    #[test]
    fn the_admission_policy_lists_the_same_parameters() {
        let policy = include_str!("../../../../deploy/base/machine-classes.yaml");
        let policy = policy.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(policy.contains(&format!("\"simulated\": {KNOWN:?}")), "deploy/base/machine-classes.yaml");
    }

    #[test]
    fn the_admission_policy_fixes_what_makes_the_place() {
        let policy = include_str!("../../../../deploy/base/machine-class-use.yaml");
        assert!(policy.contains(r#""simulated": {"account": ""}"#), "deploy/base/machine-class-use.yaml");
    }

    #[test]
    fn a_mistake_is_explained_with_the_field_and_what_is_allowed() {
        for (parameters, field, allowed) in [
            (json!({"sed": 1}), "spec.parameters.sed:", "seed, account, capacity"),
            (json!({"seed": -1}), "spec.parameters.seed:", "u64"),
            (json!({"failureRate": 1.5}), "spec.parameters.failureRate:", "0 to 1"),
            (json!({"latency": {"created": {"fixedMs": 1}}}), "spec.parameters.latency", "create"),
            (json!({"latency": {"create": {"fixed": 1}}}), "spec.parameters.latency.create", "fixedMs"),
            (json!({"latency": {"create": {"uniformMs": [5, 1]}}}), "spec.parameters.latency.create:", "rising"),
            (json!({"boot": {"logNormalMs": {"median": 0, "p99": 1}}}), "spec.parameters.boot:", "above 0"),
            (json!({"hang": ["everything"]}), "spec.parameters.hang[0]", "delete"),
        ] {
            let error = read(&parameters).unwrap_err();
            assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
            let message = error.to_string();
            assert!(message.starts_with(field) && message.contains(allowed), "{message}");
        }
    }

    #[test]
    fn rates_and_spread_durations_are_not_deterministic() {
        let fixed = json!({"capacity": 1, "latency": {"create": {"fixedMs": 5}}, "boot": {"fixedMs": 1}, "lifetime": {"fixedMs": 9}});
        assert!(read(&json!({})).unwrap().is_deterministic() && read(&fixed).unwrap().is_deterministic());
        let spread = json!({"uniformMs": [1, 2]});
        for parameters in [
            json!({"failureRate": 0.1}),
            json!({"lostAnswerRate": 0.1}),
            json!({"repeatRate": 0.1}),
            json!({"latency": {"list": spread}}),
            json!({"boot": spread}),
            json!({"lifetime": spread}),
        ] {
            assert!(!read(&parameters).unwrap().is_deterministic(), "{parameters}");
        }
    }

    #[test]
    fn distributions_have_their_declared_shape() {
        let sample = |drawn: Distribution| {
            let mut sample: Vec<f64> =
                (0..4000).map(|n| drawn.draw(Draw::new(7, "server", "call", n)).as_secs_f64() * 1000.0).collect();
            sample.sort_by(f64::total_cmp);
            (sample.iter().sum::<f64>() / 4000.0, sample[2000], sample[3960])
        };
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.15;
        assert!(near(sample(Distribution::Fixed(3.0)).0, 3.0));
        let (mean, median, p99) = sample(Distribution::Uniform(10.0, 20.0));
        assert!(near(mean, 15.0) && near(median, 15.0) && p99 <= 20.0, "{mean} {median} {p99}");
        let (mean, median, _) = sample(Distribution::Exponential(10.0));
        assert!(near(mean, 10.0) && near(median, 6.93), "{mean} {median}");
        let (_, median, p99) = sample(Distribution::LogNormal { median: 10.0, p99: 100.0 });
        assert!(near(median, 10.0) && near(p99, 100.0), "{median} {p99}");
    }
}
