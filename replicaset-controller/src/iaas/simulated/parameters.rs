//! Parameters of the provider `simulated`.

use std::time::Duration;

use berth_core::api::MachineClassSpec;
use serde::Deserialize;
use serde_json::Value;

use super::random::Draw;
use crate::iaas::{Error, Result, refuse_unknown};

/// The parameters, for [`refuse_unknown`] and for people.
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

/// What a MachineClass says about a simulated provider. Everything may be left out: then every call succeeds at once.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Parameters {
    /// What happens by chance is the same for the same seed, Server and number of the call, in whatever order calls come.
    pub(super) seed: u64,
    /// Classes of one account see the same machines and share its capacity.
    pub(super) account: String,
    /// Machines that the account may have; more are refused for want of room.
    pub(super) capacity: Option<usize>,
    /// How long calls take, by call; `default` is for those that are not named.
    pub(super) latency: Latency,
    /// How long a machine starts until it runs.
    pub(super) boot: Distribution,
    /// How long a machine runs until it dies by itself; not at all if not said.
    pub(super) lifetime: Option<Distribution>,
    /// Share of calls (0 to 1) that fail before anything has happened.
    pub(super) failure_rate: f64,
    /// Share of calls whose answer is lost after everything has happened.
    pub(super) lost_answer_rate: f64,
    /// Share of calls that arrive twice.
    pub(super) repeat_rate: f64,
    /// Calls that never answer.
    pub(super) hang: Vec<Call>,
    /// What the check says: that the configuration (or the credentials) cannot be used, or that nobody answers.
    pub(super) broken: Option<Broken>,
}

/// How long calls take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Latency {
    default: Distribution,
    check: Option<Distribution>,
    create: Option<Distribution>,
    get: Option<Distribution>,
    reboot: Option<Distribution>,
    delete: Option<Distribution>,
    list: Option<Distribution>,
}

impl Latency {
    fn of(&self, call: Call) -> Option<Distribution> {
        match call {
            Call::Check => self.check,
            Call::Create => self.create,
            Call::Get => self.get,
            Call::Reboot => self.reboot,
            Call::Delete => self.delete,
            Call::List => self.list,
        }
    }
}

/// A call of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Call {
    Check,
    Create,
    Get,
    Reboot,
    Delete,
    List,
}

impl Call {
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

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Broken {
    Configuration,
    Credentials,
    Unavailable,
}

/// A duration that is drawn, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Distribution {
    /// Always the same.
    #[serde(rename = "fixedMs")]
    Fixed(f64),
    /// Evenly from the first to the second.
    #[serde(rename = "uniformMs")]
    Uniform(f64, f64),
    /// Exponentially with this mean.
    #[serde(rename = "exponentialMs")]
    Exponential(f64),
    /// With a long tail.
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
/// Nothing is longer than this.
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

    /// What is wrong with its numbers.
    fn mistake(self) -> Option<&'static str> {
        let is_duration = |ms: f64| (0.0..=LONGEST).contains(&ms);
        let fine = match self {
            Self::Fixed(ms) | Self::Exponential(ms) => is_duration(ms),
            Self::Uniform(from, to) => is_duration(from) && is_duration(to) && from <= to,
            Self::LogNormal { median, p99 } => median > 0.0 && median <= p99 && is_duration(p99),
        };
        (!fine).then_some("milliseconds are from 0 to 86400000, in rising order, and a median is above 0")
    }
}

impl Parameters {
    pub(super) fn read(class: &MachineClassSpec) -> Result<Self> {
        refuse_unknown(class, &KNOWN)?;
        let value = Value::Object(class.parameters.clone());
        let read: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| Error::Configuration(format!("spec.parameters.{}: {}", error.path(), error.inner())))?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<()> {
        let rates = self.rates().into_iter().filter(|(_, rate)| !(0.0..=1.0).contains(rate));
        let mut mistakes = rates.map(|(name, rate)| format!("{name}: {rate} is no share; 0 to 1 is allowed"));
        let latencies =
            Call::ALL.into_iter().filter_map(|call| Some((format!("latency.{}", call.name()), self.latency.of(call)?)));
        let others = [("latency.default".to_owned(), self.latency.default), ("boot".to_owned(), self.boot)];
        let lifetimes = self.lifetime.map(|drawn| ("lifetime".to_owned(), drawn));
        let mut durations = latencies.chain(others).chain(lifetimes);
        let wrong = durations.find_map(|(name, drawn)| drawn.mistake().map(|mistake| format!("{name}: {mistake}")));
        match mistakes.next().or(wrong) {
            Some(mistake) => Err(Error::Configuration(format!("spec.parameters.{mistake}"))),
            None => Ok(()),
        }
    }

    /// Whether nothing is left to chance.
    pub(super) fn is_certain(&self) -> bool {
        let durations = Call::ALL.map(|call| self.latency(call)).into_iter().chain([self.boot]).chain(self.lifetime);
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

    pub(super) fn latency(&self, call: Call) -> Distribution {
        self.latency.of(call).unwrap_or(self.latency.default)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: &Value) -> Result<Parameters> {
        let class = json!({"provider": "simulated", "parameters": parameters});
        Parameters::read(&serde_json::from_value(class).unwrap())
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field_and_what_is_allowed() {
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
            assert!(matches!(error, Error::Configuration(_)), "{error:?}");
            let message = error.to_string();
            assert!(message.starts_with(field) && message.contains(allowed), "{message}");
        }
    }

    #[test]
    fn chance_has_a_part_where_a_rate_or_a_duration_says_so() {
        let fixed = json!({"capacity": 1, "latency": {"create": {"fixedMs": 5}}, "boot": {"fixedMs": 1}, "lifetime": {"fixedMs": 9}});
        assert!(read(&json!({})).unwrap().is_certain() && read(&fixed).unwrap().is_certain());
        let spread = json!({"uniformMs": [1, 2]});
        for parameters in [
            json!({"failureRate": 0.1}),
            json!({"lostAnswerRate": 0.1}),
            json!({"repeatRate": 0.1}),
            json!({"latency": {"list": spread}}),
            json!({"boot": spread}),
            json!({"lifetime": spread}),
        ] {
            assert!(!read(&parameters).unwrap().is_certain(), "{parameters}");
        }
    }

    #[test]
    fn distributions_have_the_shape_that_is_declared() {
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
