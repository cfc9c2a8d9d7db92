//! A look at the checks of an analysis: asks Prometheus, and judges what it answers.

mod answer;
mod judge;
mod prometheus;
mod rules;
mod sides;

use std::collections::BTreeMap;

use berth_core::{
    api::{
        AlarmProgress, Alarms, AnalysisProgress, Check, CheckVerdict, NoData, RolloutProgress, Server, VMDeployment,
    },
    digest,
};
use berth_runtime::{ApiError, Context};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;

use self::{answer::Answer, judge::Finding, prometheus::Prometheus, sides::Sides};
use crate::{
    alarms::{self, AlarmLook, Seen},
    analysis::{self, CheckResult, Look, Subject},
    background,
    count::RolloutCount,
    hold::hold,
    replica_set::newest_app,
    steps,
    watch::{self, Watch},
};

/// Most characters of a message, as the schema of the status says.
const MOST_CHARACTERS: usize = 1000;

/// The Prometheus of each class, or why it cannot be asked.
type Sources = BTreeMap<String, Result<Prometheus, String>>;

/// Checks that are due to be looked at, with the record that they are looked at for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due<'a> {
    /// Which record that is.
    pub(crate) subject: Subject,
    /// The checks.
    pub(crate) watch: Watch<'a>,
    /// The record.
    pub(crate) of: &'a AnalysisProgress,
}

/// What is due to be looked at; nothing while something holds the roll-out. Cheap where a VMDeployment has no checks.
pub(crate) fn due<'a>(
    deployment: &'a VMDeployment,
    servers: &[&Server],
    missing_content: Option<&str>,
    now: Timestamp,
) -> Vec<Due<'a>> {
    let rollout = &deployment.spec.rollout;
    let Some(progress) = steps::recorded(deployment, &newest_app(deployment)) else { return Vec::new() };
    let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let of_step =
        is_due(analysis::next_look(rollout, progress)).then(|| analysis::watched(rollout, progress)).flatten();
    let of_step = of_step.map(|(watch, of)| Due { subject: Subject::Step, watch, of });
    let of_rest =
        is_due(background::next_look(rollout, progress)).then(|| background::recorded(rollout, progress)).flatten();
    let of_rest =
        of_rest.map(|(declared, of)| Due { subject: Subject::Background, watch: Watch::Background(declared), of });
    let due: Vec<Due<'a>> = of_step.into_iter().chain(of_rest).collect();
    if due.is_empty() || !may_look(deployment, servers, missing_content, progress, now) { Vec::new() } else { due }
}

/// The alarms, if they are due to be looked at, with the record that they are looked at for.
pub(crate) fn due_alarms<'a>(
    deployment: &'a VMDeployment,
    servers: &[&Server],
    missing_content: Option<&str>,
    now: Timestamp,
) -> Option<(&'a Alarms, &'a AlarmProgress)> {
    let rollout = &deployment.spec.rollout;
    let progress = steps::recorded(deployment, &newest_app(deployment))?;
    alarms::next_look(rollout, progress).filter(|at| *at <= now)?;
    alarms::recorded(rollout, progress).filter(|_| may_look(deployment, servers, missing_content, progress, now))
}

/// Whether something may come of a look: no new request waits, which comes first, and the roll-out is not held, or goes on by itself.
fn may_look(
    deployment: &VMDeployment,
    servers: &[&Server],
    missing_content: Option<&str>,
    progress: &RolloutProgress,
    now: Timestamp,
) -> bool {
    let request = deployment.spec.rollout.request.as_ref();
    let is_requested = request.is_some_and(|new| progress.observed_request.as_ref() != Some(&new.id));
    let hold = || hold(deployment, &RolloutCount::of(deployment, servers, now), missing_content, Some(progress), now);
    !is_requested && hold().is_none_or(|hold| hold.is_waiting())
}

/// Looks at the alarms. Whatever is wrong with Prometheus is what is seen; an error is returned only if the API server does not answer.
pub(crate) async fn at_alarms(
    ctx: &Context,
    deployment: &VMDeployment,
    (alarms, of): (&Alarms, &AlarmProgress),
) -> Result<AlarmLook, ApiError> {
    let at = ctx.clock.now();
    let labels = alarms.match_labels.iter();
    let labels = labels.map(|(label, value)| (label.clone(), named(value, deployment))).collect();
    let seen = match Prometheus::of_class(&ctx.client, &alarms.source, deployment.namespace()).await? {
        Ok(prometheus) => prometheus.alarms(&alarms.names, &labels).await,
        Err(problem) => Err(problem),
    };
    let short = |text: String| text.chars().take(MOST_CHARACTERS).collect();
    let mut seen = seen.unwrap_or_else(|problem| Seen { firing: Vec::new(), unknown: Some(problem) });
    seen.unknown = seen.unknown.map(short);
    Ok(AlarmLook { app: digest::short(&newest_app(deployment)), of: of.clone(), at, seen })
}

/// Looks at these checks. Whatever is wrong with Prometheus or a query is what the checks say; an error is returned only
/// if the API server does not answer.
pub(crate) async fn make(
    ctx: &Context,
    deployment: &VMDeployment,
    servers: &[&Server],
    Due { subject, watch, of }: Due<'_>,
) -> Result<Look, ApiError> {
    let (rollout, at, newest) = (&deployment.spec.rollout, ctx.clock.now(), newest_app(deployment));
    let checks: Vec<(&String, Option<&Check>)> =
        watch.checks().iter().map(|name| (name, watch::check(rollout, name))).collect();
    let mut sources = Sources::new();
    for (_, check) in &checks {
        let Some(Check { source, .. }) = check else { continue };
        if !sources.contains_key(source) {
            let found = Prometheus::of_class(&ctx.client, source, deployment.namespace()).await?;
            sources.insert(source.clone(), found);
        }
    }
    let progress = steps::recorded(deployment, &newest);
    let sides = Sides::of(deployment, servers, &newest, progress);
    let elapsed = watch.elapsed(of, at);
    let fill = |query: &str| filled(query, deployment, elapsed);
    let results = checks.iter().map(async |(name, check)| {
        let finding = match check {
            Some(check) => finding(check, &sources, &sides, watch.looks(of), &fill).await,
            None => Finding::Unknown(format!("rollout.checks has no check {name}")),
        };
        result(name, finding, watch.no_data())
    });
    let results = join_all(results).await;
    Ok(Look { subject, app: digest::short(&newest), of: of.clone(), at, results })
}

async fn finding(
    check: &Check,
    sources: &Sources,
    sides: &Sides<'_>,
    looks: u32,
    fill: &impl Fn(&str) -> String,
) -> Finding {
    let prometheus = match sources.get(&check.source) {
        Some(Ok(prometheus)) => prometheus,
        Some(Err(problem)) => return Finding::Unknown(problem.clone()),
        None => return Finding::Unknown(format!("there is no MonitoringClass {}", check.source)),
    };
    let ask = async |query: &str| prometheus.ask(&fill(query)).await;
    if let Some(declared) = &check.shift {
        return match ask(&declared.query).await {
            Ok(answer) => judge::shift(declared, &answer, sides, looks),
            Err(problem) => Finding::Unknown(problem),
        };
    }
    match (&check.proportion, &check.query, &check.condition) {
        (Some(declared), ..) => {
            let answers = futures::join!(ask(&declared.bad), ask(&declared.total));
            let (Ok(bad), Ok(total)) = &answers else { return Finding::Unknown(problem(answers)) };
            judge::proportion(declared, bad, total, sides, looks)
        }
        (None, Some(query), Some(condition)) => match ask(query).await {
            Ok(answer) => judge::value(&answer, condition, sides),
            Err(problem) => Finding::Unknown(problem),
        },
        _ => Finding::Unknown("the check has neither proportion nor shift, nor query and condition".to_owned()),
    }
}

fn problem((bad, total): (Result<Answer, String>, Result<Answer, String>)) -> String {
    bad.err()
        .map(|problem| format!("bad: {problem}"))
        .or_else(|| total.err().map(|problem| format!("total: {problem}")))
        .unwrap_or_default()
}

/// The query with the values of its placeholders.
fn filled(query: &str, deployment: &VMDeployment, elapsed: i64) -> String {
    named(query, deployment).replace("$elapsed", &format!("{elapsed}s"))
}

/// The text with the names of the VMDeployment. `$namespace` comes first, because `$name` is its beginning.
fn named(text: &str, deployment: &VMDeployment) -> String {
    text.replace("$namespace", deployment.namespace()).replace("$name", deployment.name())
}

fn result(name: &str, finding: Finding, no_data: NoData) -> CheckResult {
    let (verdict, message) = match finding {
        Finding::Said(verdict, message) => (verdict, message),
        Finding::NoData(message) if no_data == NoData::Fail => (CheckVerdict::Fail, format!("no data: {message}")),
        Finding::NoData(message) => (CheckVerdict::Inconclusive, format!("no data: {message}")),
        Finding::Unknown(message) => (CheckVerdict::Inconclusive, message),
    };
    CheckResult { name: name.to_owned(), verdict, message: message.chars().take(MOST_CHARACTERS).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::deployment;

    #[test]
    fn placeholders_are_filled_in() {
        let deployment = deployment("v1", |_| {});
        let query = r#"x{namespace="$namespace", server=~"$name-.*"}[$elapsed]"#;
        let expected =
            format!(r#"x{{namespace="{}", server=~"{}-.*"}}[90s]"#, deployment.namespace(), deployment.name());
        assert_eq!(filled(query, &deployment, 90), expected);
    }

    #[test]
    fn no_data_is_never_a_pass_and_what_cannot_be_asked_is_never_a_failure() {
        use CheckVerdict::{Fail, Inconclusive, Pass};
        let none = || Finding::NoData("x".into());
        for (finding, no_data, expected) in [
            (none(), NoData::Inconclusive, Inconclusive),
            (none(), NoData::Fail, Fail),
            (Finding::Unknown("down".into()), NoData::Fail, Inconclusive),
            (Finding::Said(Pass, "1".into()), NoData::Fail, Pass),
        ] {
            assert_eq!(result("slo", finding, no_data).verdict, expected);
        }
        assert_eq!(result("slo", Finding::Unknown("ä".repeat(5000)), NoData::Fail).message.chars().count(), 1000);
    }
}
