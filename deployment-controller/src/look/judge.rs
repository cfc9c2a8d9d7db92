//! What the answers of Prometheus say about the new version. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::{CheckVerdict, Proportion, Shift};
use berth_verdict::{Condition, Counts, alpha_of_one_look, increase};

use super::{
    answer::{Answer, Sample},
    sides::Sides,
};

/// Names in a message.
const NAMES: usize = 3;

/// What a check says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// It was measured, and says this.
    Said(CheckVerdict, String),
    /// There was nothing to measure.
    NoData(String),
    /// It could not be measured, or not understood. That says nothing about the new version.
    Unknown(String),
}

/// Whether the number, or the number of each Server with the new version, is as it has to be.
pub(super) fn value(answer: &Answer, condition: &str, sides: &Sides<'_>) -> Finding {
    let condition: Condition = match condition.parse() {
        Ok(condition) => condition,
        Err(problem) => return Finding::Unknown(problem),
    };
    let numbers: Vec<(&str, f64)> = match answer {
        Answer::Scalar(number) => vec![("", *number)],
        Answer::Series(series) => match &series[..] {
            [Sample { server: None, value, .. }] => vec![("", *value)],
            several => match by_server(several, sides.namespace) {
                Ok(found) => found.into_iter().filter(|(server, _)| sides.canary.contains(server)).collect(),
                Err(problem) => return Finding::Unknown(problem),
            },
        },
    };
    let numbers: Vec<_> = numbers.into_iter().filter(|(_, number)| !number.is_nan()).collect();
    let judged = numbers.iter().map(|(server, number)| (condition.judge(*number), *server, *number));
    let Some((verdict, server, number)) = judged.max_by_key(|(verdict, ..)| *verdict == CheckVerdict::Fail) else {
        return Finding::NoData("the query returns no number for a Server with the new version".to_owned());
    };
    let of = if server.is_empty() { String::new() } else { format!(" for Server {server}") };
    Finding::Said(verdict, format!("{}{of}, wanted {condition}", short(number)))
}

/// Whether what is bad has become more frequent.
pub(super) fn proportion(
    declared: &Proportion,
    bad: &Answer,
    total: &Answer,
    sides: &Sides<'_>,
    looks: u32,
) -> Finding {
    let (Ok(tolerated), Ok(alpha)) = (declared.max_increase.parse::<f64>(), declared.alpha.parse::<f64>()) else {
        return Finding::Unknown("maxIncrease or alpha of the check is no decimal number".to_owned());
    };
    if let Some(nobody) = sides.nobody() {
        return Finding::NoData(nobody);
    }
    let (bad, total) = match (counted("bad", bad, sides), counted("total", total, sides)) {
        (Ok(bad), Ok(total)) => (bad, total),
        (Err(problem), _) | (_, Err(problem)) => return Finding::Unknown(problem),
    };
    if !total.is_empty() && bad.is_empty() {
        return Finding::NoData(
            "the query for what is bad returns nothing. Should that mean that nothing was bad, let it return 0: add \
             `or 0 * <the query for the total>`"
                .to_owned(),
        );
    }
    let sum = |servers: &BTreeSet<&str>| side(servers, &bad, &total);
    let (canary, baseline) = match (sum(&sides.canary), sum(&sides.baseline)) {
        (Ok(canary), Ok(baseline)) => (canary, baseline),
        (Err(problem), _) | (_, Err(problem)) => return Finding::Unknown(problem),
    };
    for (side, what) in [(&canary, "with the new version"), (&baseline, sides.others())] {
        if side.counts.total <= 0.0 {
            return Finding::NoData(format!("nothing was counted on Servers {what} ({} of them)", side.of));
        }
    }
    let found = increase(canary.counts, baseline.counts, alpha_of_one_look(alpha, looks));
    let is_alone = canary.servers == 1 || sides.is_baseline() && baseline.servers == 1;
    let alone = if is_alone { "; one Server alone cannot tell the version from the machine" } else { "" };
    let message = format!(
        "{} with the new version, {} {}: between {} and {} more, at most {} may be{alone}",
        canary.text(),
        baseline.text(),
        sides.which(),
        short(found.low),
        short(found.high),
        declared.max_increase,
    );
    Finding::Said(found.judge(tolerated), message)
}

/// Whether the numbers of the Servers with the new version have become higher.
pub(super) fn shift(declared: &Shift, answer: &Answer, sides: &Sides<'_>, looks: u32) -> Finding {
    let (Ok(tolerated), Ok(alpha)) = (declared.max_increase.parse::<f64>(), declared.alpha.parse::<f64>()) else {
        return Finding::Unknown("maxIncrease or alpha of the check is no decimal number".to_owned());
    };
    if let Some(nobody) = sides.nobody() {
        return Finding::NoData(nobody);
    }
    let numbers = match counted("shift", answer, sides) {
        Ok(numbers) => numbers,
        Err(problem) => return Finding::Unknown(problem),
    };
    let of = |servers: &BTreeSet<&str>| -> Vec<f64> {
        servers.iter().filter_map(|server| numbers.get(server).copied()).filter(|number| !number.is_nan()).collect()
    };
    let (canary, baseline) = (of(&sides.canary), of(&sides.baseline));
    for (side, of, what) in
        [(&canary, sides.canary.len(), "with the new version"), (&baseline, sides.baseline.len(), sides.others())]
    {
        if side.is_empty() {
            return Finding::NoData(format!("the query returns no number for a Server {what} ({of} of them)"));
        }
        if side.iter().any(|number| number.is_infinite()) {
            return Finding::Unknown(format!(
                "the query returns infinity for a Server {what}: the highest bucket of its histogram is too low"
            ));
        }
    }
    let text = format!(
        "median {} on {} of {} Servers with the new version, {} on {} of {} {}",
        short(median(&canary)),
        canary.len(),
        sides.canary.len(),
        short(median(&baseline)),
        baseline.len(),
        sides.baseline.len(),
        sides.which(),
    );
    match berth_verdict::shift(&canary, &baseline, alpha_of_one_look(alpha, looks)) {
        None => Finding::Said(CheckVerdict::Inconclusive, format!("{text}: too few Servers for so small an alpha")),
        Some(found) => {
            let (low, high) = (short(found.low), short(found.high));
            let message = format!("{text}: between {low} and {high} more, at most {} may be", declared.max_increase);
            Finding::Said(found.judge(tolerated), message)
        }
    }
}

/// The number in the middle; the higher of two.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The numbers of each Server.
fn counted<'a>(name: &str, answer: &'a Answer, sides: &Sides<'_>) -> Result<BTreeMap<&'a str, f64>, String> {
    match answer {
        Answer::Series(series) => by_server(series, sides.namespace).map_err(|problem| format!("{name}: {problem}")),
        Answer::Scalar(_) => {
            Err(format!("{name}: the query returns one number, and one for each Server is needed: sum by (server)"))
        }
    }
}

/// What was counted on some Servers.
struct Side {
    counts: Counts,
    /// Servers on which it was counted.
    servers: usize,
    /// Servers on which it should have been counted.
    of: usize,
}

impl Side {
    fn text(&self) -> String {
        let Counts { bad, total } = self.counts;
        format!("{bad:.0} of {total:.0} bad on {} of {} Servers", self.servers, self.of)
    }
}

/// A Server counts if both numbers are there: a version that does not measure what is bad any more must not pass for that.
fn side(servers: &BTreeSet<&str>, bad: &BTreeMap<&str, f64>, total: &BTreeMap<&str, f64>) -> Result<Side, String> {
    let mut side = Side { counts: Counts::default(), servers: 0, of: servers.len() };
    for server in servers {
        let (Some(bad), Some(total)) = (bad.get(server), total.get(server)) else { continue };
        if !bad.is_finite() || !total.is_finite() {
            continue;
        }
        // Prometheus extrapolates each of the two for itself, so a little more may be bad than there is at all.
        if *bad < 0.0 || *total < 0.0 || *bad > total * 1.1 + 1.0 {
            return Err(format!(
                "on Server {server} {} of {} were bad, which cannot be: bad has to count a part of total",
                short(*bad),
                short(*total)
            ));
        }
        side.counts.bad += bad.min(*total);
        side.counts.total += total;
        side.servers += usize::from(*total > 0.0);
    }
    Ok(side)
}

/// The numbers by Server; several of one Server are added up. Series of another namespace do not count.
fn by_server<'a>(series: &'a [Sample], namespace: &str) -> Result<BTreeMap<&'a str, f64>, String> {
    let mut found = BTreeMap::new();
    let mut without = 0_usize;
    for sample in series {
        if sample.namespace.as_ref().is_some_and(|other| other != namespace) {
            continue;
        }
        match &sample.server {
            Some(server) => *found.entry(server.as_str()).or_insert(0.0) += sample.value,
            None => without += 1,
        }
    }
    if without > 0 {
        let some: Vec<&str> = found.keys().copied().take(NAMES).collect();
        let others = if some.is_empty() { String::new() } else { format!(", beside those of {}", some.join(", ")) };
        return Err(format!(
            "the query returns {without} series without the label server{others}: add `by (server)`, or `sum` where one number is meant"
        ));
    }
    Ok(found)
}

/// A number with four digits that mean something.
fn short(number: f64) -> String {
    let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(number);
    rounded.to_string()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
