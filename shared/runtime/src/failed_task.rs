//! Failed tasks: the one place that counts them, and says which reason and which text their Events have.

use berth_core::api::{Server, TaskKind, TaskPhase};

use crate::{Context, EventType, reference};

impl Context {
    /// Publishes a Warning Event, logs it and counts it, if the task with this id has failed for good: `GateRefused` for a gate,
    /// `TaskFailed` for any other task. `written` is the Server as the API server returned it for the write that reported on
    /// the task, because only the webhook knows whether a `Retry` was the last attempt.
    pub fn publish_if_failed(&self, written: &Server, task_id: i64) {
        let Some(task) = written.task(task_id).filter(|task| task.phase == TaskPhase::Failed) else { return };
        self.metrics.count_failed_task(task.kind.to_string());
        let reason = if task.kind == TaskKind::Gate { "GateRefused" } else { "TaskFailed" };
        let note = format!("{} (task {}): {}", task.kind, task.id, task.message);
        tracing::warn!(server = written.name(), namespace = written.namespace(), note, "{reason}");
        self.events.publish(&reference(written), EventType::Warning, reason, note);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use berth_core::api::{GatePoint, Server};
    use berth_testing::FakeApi;

    use super::*;
    use crate::testing::context;

    #[tokio::test(start_paused = true)]
    async fn only_a_failed_task_is_counted_and_published_with_its_kind_and_message() {
        let api = FakeApi::new();
        let ctx = context(&api, "a");
        let mut server = api.server();
        ctx.publish_if_failed(&server, 1);
        ctx.publish_if_failed(&server, 99);
        let publish_failure = |server: &mut Server, kind: TaskKind, gate: Option<GatePoint>| {
            let task = &mut server.status.as_mut().unwrap().tasks[0];
            (task.kind, task.gate, task.phase, task.message) = (kind, gate, TaskPhase::Failed, "no quota".into());
            ctx.publish_if_failed(server, 1);
        };
        publish_failure(&mut server, TaskKind::CreateMachine, None);
        publish_failure(&mut server, TaskKind::Gate, Some(GatePoint::CreateMachine));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = api.state().events.clone();
        let mut published: Vec<(&str, &str)> = events
            .iter()
            .map(|(_, event)| (event["reason"].as_str().unwrap(), event["message"].as_str().unwrap()))
            .collect();
        published.sort_unstable();
        let expected = [("GateRefused", "Gate (task 1): no quota"), ("TaskFailed", "CreateMachine (task 1): no quota")];
        assert_eq!(published, expected);
        let metrics = ctx.metrics.encode().unwrap();
        for task in ["CreateMachine", "Gate"] {
            let counted = format!("berth_failed_tasks_total{{task=\"{task}\"}} 1");
            assert!(metrics.contains(&counted), "{metrics}");
        }
    }
}
