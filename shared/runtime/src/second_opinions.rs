//! Questions and opinions about lost machines, between the copies of the controllers.

use std::{collections::HashSet, time::Duration};

use berth_core::{
    api::Executor,
    second_opinion::{MAX_SAMPLE, OPINIONS, Opinion, QUESTION, Question, SampledServer, SecondOpinion},
};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{Context, ControllerCopy, Copies};

/// How long one look at a machine may take; a machine that is not there often means a silent wait.
const LOOK_LIMIT: Duration = Duration::from_secs(8);

/// The question that a copy of monitor-controller asks at the moment; none if it asks nothing that can be understood.
#[must_use]
pub fn question_of(copy: &ControllerCopy) -> Option<Question> {
    let text = copy.notes.get(QUESTION).filter(|_| copy.executor == Executor::MonitorController)?;
    let mut question: Question = serde_json::from_str(text).ok()?;
    question.sample.truncate(MAX_SAMPLE);
    Some(question)
}

impl Copies {
    /// What the other copies say on the question with this id.
    #[must_use]
    pub fn second_opinion(&self, id: &str) -> SecondOpinion {
        let others = self.others();
        let opinions: Vec<(Executor, Vec<Opinion>)> = others
            .iter()
            .filter_map(|copy| Some((copy.executor, serde_json::from_str(copy.notes.get(OPINIONS)?).ok()?)))
            .collect();
        SecondOpinion::of(
            id,
            opinions.iter().flat_map(|(executor, all)| all.iter().map(|opinion| (*executor, opinion))),
        )
    }
}

/// Answers the questions of other copies until shutdown. `look` says whether a machine is reached from here; none if it cannot
/// tell. At most ten machines are looked at together.
pub async fn answer_questions<F, L>(ctx: Context, copies: Copies, look: F)
where
    F: Fn(SampledServer) -> L,
    L: Future<Output = Option<bool>>,
{
    let mut changes = copies.changes();
    let mut opinions: Vec<Opinion> = Vec::new();
    loop {
        let questions: Vec<Question> = changes.borrow_and_update().iter().filter_map(question_of).collect();
        opinions.retain(|opinion| questions.iter().any(|question| question.id == opinion.id));
        let said_on: HashSet<String> = opinions.iter().map(|opinion| opinion.id.clone()).collect();
        for question in questions.into_iter().filter(|question| !said_on.contains(&question.id)) {
            let looked = tokio::select! {
                biased;
                looked = opinion(&question, &look) => looked,
                () = ctx.shutdown.cancelled() => return,
            };
            let Opinion { id, reached, lost } = &looked;
            tracing::info!(question = id, reached, lost, "looked at machines that monitor-controller has lost");
            opinions.push(looked);
        }
        let text = (!opinions.is_empty()).then(|| serde_json::to_string(&opinions).ok()).flatten();
        copies.say(OPINIONS, text);
        tokio::select! {
            biased;
            ended = changes.changed() => if ended.is_err() { return },
            () = ctx.shutdown.cancelled() => return,
        }
    }
}

async fn opinion<L: Future<Output = Option<bool>>>(question: &Question, look: &impl Fn(SampledServer) -> L) -> Opinion {
    let looks: Vec<_> = question.sample.iter().cloned().map(|server| timeout(LOOK_LIMIT, look(server))).collect();
    // A look without an end finds nothing.
    let found: Vec<_> = join_all(looks).await.into_iter().map(|look| look.unwrap_or(Some(false))).collect();
    let count = |reached: bool| found.iter().filter(|look| **look == Some(reached)).count();
    Opinion { id: question.id.clone(), reached: count(true), lost: count(false) }
}
