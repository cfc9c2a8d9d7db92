//! Surveys the machines all the time, asks the other copies when too many are lost at once, and says what it believes.

use std::sync::Arc;

use berth_core::{
    api::Server,
    second_opinion::{QUESTION, Question, SecondOpinion},
};
use berth_runtime::{Context, Copies, EventType};
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    metrics::ProbeMetrics,
    prober::Prober,
    sight::{Doubt, News, SURVEY_PERIOD, Sight, Trust},
    survey::{Survey, affected_sets, sample},
};

/// The task that keeps the [`Sight`] of this process.
pub(crate) struct SightKeeper {
    ctx: Context,
    copies: Copies,
    prober: Prober,
    changed_servers: UnboundedSender<ObjectRef<Server>>,
    metrics: Arc<ProbeMetrics>,
    sight: Sight,
    /// The latest question.
    question: Option<Question>,
}

impl SightKeeper {
    /// Doubts what the prober finds when more than `share` percent of the machines are lost.
    pub(crate) fn new(
        ctx: &Context,
        copies: &Copies,
        prober: &Prober,
        changed_servers: UnboundedSender<ObjectRef<Server>>,
        metrics: Arc<ProbeMetrics>,
        share: u8,
    ) -> Self {
        let (ctx, copies, prober, sight) = (ctx.clone(), copies.clone(), prober.clone(), Sight::new(share));
        Self { ctx, copies, prober, changed_servers, metrics, sight, question: None }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(mut self) {
        let shutdown = self.ctx.shutdown.clone();
        let mut tick = interval(SURVEY_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = tick.tick() => self.survey(),
            }
        }
    }

    fn survey(&mut self) {
        let (survey, now) = (self.prober.survey(), self.ctx.clock.now());
        let answer = self.question.as_ref().map(|question| self.copies.second_opinion(&question.id));
        let change = self.sight.step(&survey, answer.unwrap_or_default(), now);
        if change.news == Some(News::Ended { forget: true }) {
            // Before anything is believed again.
            self.prober.forget_failures();
        }
        let trust = self.sight.trust(&survey, now);
        self.prober.set_trust(trust);
        self.metrics.surveyed(&survey, trust == Trust::Nothing);
        self.ask(change.ask, now);
        if let Some(news) = change.news {
            self.tell(news, &survey);
            // What was withheld may be due now.
            for target in self.prober.targets() {
                let server = ObjectRef::new(&target.name).within(&target.namespace);
                // Fails at shutdown only, when the controller has ended.
                let _ = self.changed_servers.unbounded_send(server);
            }
        }
    }

    /// Says the question: a new one, the one that stands, or none.
    fn ask(&mut self, anew: bool, now: Timestamp) {
        self.question = match (self.sight.doubt(), self.question.take()) {
            (Some(Doubt { since, opinion, .. }), question) if anew || question.is_none() => {
                let (id, targets) = (format!("{:016x}", now.as_nanosecond()), self.prober.targets());
                let (since, opinion) = (Time(*since), *opinion);
                let (sample, sets) = (sample(&targets, &id), affected_sets(&targets));
                Some(Question { id, since, opinion, sample, sets })
            }
            (Some(doubt), Some(question)) => Some(Question { opinion: doubt.opinion, ..question }),
            (_, _) => None,
        };
        let text = self.question.as_ref().and_then(|question| serde_json::to_string(question).ok());
        self.copies.say(QUESTION, text);
    }

    /// Tells people.
    fn tell(&self, news: News, survey: &Survey) {
        let Survey { targets, lost, .. } = *survey;
        let (kind, reason, note) = match news {
            News::Began => {
                let note = format!(
                    "{lost} of {targets} machines are lost at once: it may be this copy of monitor-controller that is blind, so \
                     it calls none of them unreachable and no application on them unhealthy until others agree"
                );
                (EventType::Warning, "MonitorBlind", note)
            }
            News::Opinion(SecondOpinion::Contradicts) => {
                let note = format!(
                    "others reach machines that this copy of monitor-controller has lost ({lost} of {targets}): it is blind. \
                     Check its node and the network policies between it and the machines"
                );
                (EventType::Warning, "MonitorBlind", note)
            }
            News::Opinion(SecondOpinion::Agrees) => {
                let note = format!(
                    "replicaset-controller does not reach the machines either: {lost} of {targets} are lost, and are \
                     reported as unreachable"
                );
                (EventType::Warning, "LossConfirmed", note)
            }
            News::Opinion(SecondOpinion::Missing) => {
                let note =
                    "nobody says any more whether the machines are lost: nothing is reported about them".to_owned();
                (EventType::Warning, "MonitorBlind", note)
            }
            News::Ended { forget } => {
                let seen = if forget { ", and what was seen meanwhile is forgotten" } else { "" };
                let note =
                    format!("{lost} of {targets} machines are lost: that is no doubt of this copy's sight{seen}");
                (EventType::Normal, "MonitorSees", note)
            }
        };
        tracing::warn!(reason, lost, targets, "{note}");
        self.ctx.events.publish(&self.copies.reference(), kind, reason, note);
    }
}
