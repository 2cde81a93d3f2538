//! What the operator says.

use conductor_protocol::control::{ConfigChange, NamespaceBudget, OnReached};
use conductor_protocol::human::DurationMs;
use conductor_protocol::terms::Answer;
use conductor_protocol::{AgentId, Control, Namespace, TaskId};

use super::Action;
use super::submissions::QUEUES;
use crate::options::Options;
use crate::random::Random;

/// Draws the operator's commands, and the settings the cell begins with.
pub(super) fn draw(o: &Options, known: &[(u64, TaskId)], actions: &mut Vec<(u64, Action)>) {
    let mut r = Random::stream(o.seed, "commands");
    let first = ConfigChange {
        aging: Some(DurationMs(
            if o.is_narrow { 1 } else { r.between(2, 60) } * 1_000,
        )),
        finished_max: r.chance(600).then(|| r.between(1, 20)),
        finished_retention: r.chance(400).then(|| DurationMs(r.between(1, 120) * 1_000)),
        tombstones_max: r.chance(300).then(|| r.between(1, 20)),
        idempotency_window: r
            .chance(300)
            .then(|| DurationMs(r.between(20, 120) * 1_000)),
        backlog_max: r.chance(100).then(|| r.between(2, 20)),
        ..ConfigChange::default()
    };
    actions.push((0, Action::Say(Control::PutConfig(first))));
    budgets(o, actions);
    for _ in 0..o.commands {
        let at = r.below(o.trouble_ms);
        let queue = r.pick(&QUEUES).and_then(|q| q.parse().ok());
        let agent = AgentId::from_log(&format!("a{}", r.below(o.agents)));
        let control = match (r.below(12), r.pick(known), queue) {
            (0..=3, Some((_, task)), _) => Control::Cancel {
                task: *task,
                reason: None,
            },
            (4..=6, Some((_, task)), _) => Control::Retry { task: *task },
            (7, _, Some(queue)) => Control::PauseQueue { queue },
            (8, _, Some(queue)) => Control::ResumeQueue { queue },
            (9, ..) => Control::DrainAgent { agent },
            (10, ..) => Control::ResumeAgent { agent },
            _ => Control::PutConfig(ConfigChange {
                aging: Some(DurationMs(r.between(2, 60) * 1_000)),
                ..ConfigChange::default()
            }),
        };
        // Cancels and retries come soon after the task as often as long after.
        let near = match &control {
            Control::Cancel { task, .. } | Control::Retry { task } if r.chance(500) => known
                .iter()
                .find(|(_, id)| id == task)
                .map(|(at, _)| at + r.around(3_000)),
            _ => None,
        };
        actions.push((near.unwrap_or(at), Action::Say(control)));
    }
}

/// What namespaces may spend, set before much happens and changed later.
fn budgets(o: &Options, actions: &mut Vec<(u64, Action)>) {
    let mut r = Random::stream(o.seed, "budgets");
    if o.is_narrow || !r.chance(400) {
        return;
    }
    let mut luck = Random::stream(o.seed, "policies");
    let policies = [
        None,
        Some(OnReached::Wait),
        Some(OnReached::Fail),
        Some(OnReached::Ask),
        Some(OnReached::Ask),
    ];
    for at in [r.below(5_000), r.below(o.trouble_ms)] {
        let budget = NamespaceBudget {
            tokens_per_day: Some(r.below(3_000)),
            turns_per_day: r.chance(500).then(|| r.below(6)),
            on_reached: *luck.pick(&policies).unwrap_or(&None),
            ..NamespaceBudget::default()
        };
        let namespace = r.pick(&["default", "ns0", "ns1"]).copied();
        let change = ConfigChange {
            namespace_budget: [(namespace.unwrap_or("default").to_owned(), budget)].into(),
            ..ConfigChange::default()
        };
        actions.push((at, Action::Say(Control::PutConfig(change))));
    }
    // Some speak of it whether or not anybody asks.
    while luck.chance(500) {
        let namespace = luck.pick(&["default", "ns0", "ns1"]).copied();
        let answers = [Answer::Allow, Answer::Deny];
        let decide = Control::DecideBudget {
            namespace: Namespace::from_log(namespace.unwrap_or("default")),
            answer: luck.pick(&answers).copied().unwrap_or_default(),
            text: None,
        };
        actions.push((luck.below(o.trouble_ms), Action::Say(decide)));
    }
}
