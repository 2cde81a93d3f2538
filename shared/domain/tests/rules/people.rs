//! Questions to people, their answers, and what they say to attempts.

use conductor_domain::decide::{self, Input, Overlay};
use conductor_domain::state::APPROVALS_MAX;
use conductor_domain::{Verdict, VoidReason, explain, plan};
use conductor_protocol::event::{
    ApprovalDecided, ApprovalWithdrawn, AttemptTimedOut, AttemptTimeout, AttemptTold, Event, Word,
};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass, TaskId};
use serde_json::json;

use super::world::{World, agent, question};

/// A task that runs and has asked its first question.
fn asking() -> (World, TaskId, Lease) {
    let mut world = World::new();
    let task = world.task(json!({"timeouts": {"run": "10s"}}));
    let lease = world.run(task, "a1");
    assert_eq!(world.ask(lease, "a1"), Verdict::Applied);
    (world, task, lease)
}

/// The only thing the orchestrator would decide now.
fn decision(world: &World) -> Option<Event> {
    let mut decisions = world.decisions();
    assert!(decisions.len() <= 1, "{decisions:?}");
    decisions.pop()
}

/// Has the scheduler say all that is to be said.
fn say(world: &mut World) -> Vec<Word> {
    let mut said = Vec::new();
    for (to, event) in world.words() {
        assert_eq!(
            world.scheduler(to.as_str(), event.clone()),
            Verdict::Applied
        );
        if let Event::AttemptTold(told) = event {
            said.push(told.word);
        }
    }
    said
}

#[test]
fn an_answer_goes_from_whoever_gives_it_to_the_attempt_once() {
    let (mut world, task, lease) = asking();
    assert_eq!(world.phase(task), "awaiting_approval");
    assert_eq!(decision(&world), None, "nobody has answered");
    let answer = Control::Decide {
        task,
        approval: 1,
        answer: Answer::Allow,
        text: Some("but gently".into()),
    };
    assert_eq!(world.control(&answer), Verdict::Applied);
    let control = Position::new(world.state.seq, 0);
    let expected = ApprovalDecided {
        lease,
        approval: 1,
        answer: Answer::Allow,
        control: Some(control),
        text: Some("but gently".into()),
    };
    assert_eq!(decision(&world), Some(expected.into()));
    assert_eq!(world.words(), [], "it is not decided");
    world.settle();
    assert_eq!(world.phase(task), "running");
    let (approval, answer, text) = (1, Answer::Allow, Some("but gently".into()));
    let decision = Word::Decision {
        approval,
        answer,
        text,
    };
    assert_eq!(say(&mut world), [decision]);
    assert_eq!(world.words(), [], "it was told");
    assert!(world.of(task).aside.approvals.is_empty());
}

#[test]
fn what_is_on_its_way_is_not_said_again() {
    let (mut world, task, _) = asking();
    world.answer(task, 1, Answer::Allow);
    world.settle();
    world.tell(task, "be quick");
    let mut overlay = plan::Overlay::default();
    let words = plan::words(&world.state, &mut overlay, 100);
    assert_eq!(words.len(), 2);
    assert_eq!(plan::words(&world.state, &mut overlay, 100), []);
    // It came back, whatever became of it: what still holds is said again.
    for word in &words {
        overlay.on_folded(&word.agent, &word.clone().event());
    }
    assert_eq!(plan::words(&world.state, &mut overlay, 100), words);
    for word in words {
        let to = word.agent.clone();
        assert_eq!(world.scheduler(to.as_str(), word.event()), Verdict::Applied);
    }
    assert_eq!(plan::words(&world.state, &mut overlay, 100), []);
}

#[test]
fn a_question_that_nobody_answers_expires_with_its_default() {
    let (mut world, task, lease) = asking();
    world.now_ms += 59_999;
    assert_eq!(decision(&world), None);
    world.now_ms += 1;
    let expired = ApprovalDecided {
        lease,
        approval: 1,
        answer: Answer::Deny,
        control: None,
        text: None,
    };
    assert_eq!(decision(&world), Some(expired.clone().into()));
    // Somebody was faster than that reached the log.
    assert_eq!(world.answer(task, 1, Answer::Allow), Verdict::Applied);
    let late = world.orchestrator(expired);
    assert_eq!(late, Verdict::Void(VoidReason::Answered));
    world.settle();
    let (approval, answer, text) = (1, Answer::Allow, None);
    let decision = Word::Decision {
        approval,
        answer,
        text,
    };
    assert_eq!(say(&mut world), [decision]);
}

#[test]
fn time_does_not_run_while_an_attempt_waits_for_people() {
    let (mut world, task, lease) = asking();
    world.now_ms += 50_000;
    assert_eq!(decision(&world), None, "it waits, it does not run");
    // A second question while the first is open.
    assert_eq!(world.ask(lease, "a1"), Verdict::Applied);
    world.answer(task, 1, Answer::Allow);
    world.settle();
    say(&mut world);
    world.now_ms += 5_000;
    assert!(world.of(task).aside.paused_since.is_some(), "one is open");
    world.answer(task, 2, Answer::Allow);
    world.settle();
    say(&mut world);
    // It has run for nothing yet: ten seconds are left, and ten of grace.
    world.now_ms += 19_999;
    assert_eq!(decision(&world), None);
    world.now_ms += 1;
    let timeout = AttemptTimeout::Run;
    let timed_out = AttemptTimedOut { lease, timeout };
    assert_eq!(decision(&world), Some(timed_out.into()));
    world.settle();
    assert_eq!(world.of(task).aside.ran_ms, 20_000);
}

#[test]
fn a_question_that_is_withdrawn_is_open_for_nobody() {
    let (mut world, task, lease) = asking();
    world.ask(lease, "a1");
    let withdrawn = |approval| ApprovalWithdrawn { lease, approval };
    let not_asked = Verdict::Void(VoidReason::NotAsked);
    world.now_ms += 5_000;
    assert_eq!(world.agent_says("a1", withdrawn(1)), Verdict::Applied);
    assert_eq!(world.agent_says("a1", withdrawn(1)), not_asked, "again");
    assert_eq!(world.agent_says("a1", withdrawn(3)), not_asked, "never");
    assert_eq!(world.answer(task, 1, Answer::Allow), not_asked);
    assert_eq!(world.phase(task), "awaiting_approval", "for the other");
    // An answer that was given, and one that was decided, are nobody's business either.
    world.answer(task, 2, Answer::Allow);
    let decided = decision(&world).unwrap();
    assert_eq!(world.agent_says("a1", withdrawn(2)), Verdict::Applied);
    assert_eq!(world.orchestrator(decided), not_asked);
    assert_eq!((decision(&world), world.words()), (None, Vec::new()));
    assert_eq!(world.phase(task), "running");
    assert_eq!(world.of(task).aside.paused_ms, 5_000, "it waited so long");
    world.ask(lease, "a1");
    world.answer(task, 3, Answer::Allow);
    world.settle();
    let (to, told) = world.words().pop().unwrap();
    assert_eq!(world.agent_says("a1", withdrawn(3)), Verdict::Applied);
    assert_eq!(world.words(), []);
    assert_eq!(world.scheduler(to.as_str(), told), not_asked);
    // Its number is used up.
    let again = world.agent_says("a1", question(lease, 3));
    assert_eq!(again, Verdict::Void(VoidReason::Duplicate));
}

#[test]
fn what_was_asked_and_said_ends_with_the_lease() {
    let mut world = World::new();
    let task = world.task(json!({"retry": {"max_attempts": 2, "on": ["failed"], "jitter": 0.0}}));
    let lease = world.run(task, "a1");
    world.ask(lease, "a1");
    world.answer(task, 1, Answer::Allow);
    world.tell(task, "be quick");
    world.fail(lease, "a1", OutcomeClass::Failed);
    let aside = &world.of(task).aside;
    assert!(aside.approvals.is_empty() && aside.words.is_empty());
    assert_eq!((aside.asked, aside.paused_since), (0, None));
    world.settle();
    world.now_ms += 60_000;
    world.settle();
    let again = world.run(task, "a1");
    assert_eq!(world.words(), []);
    assert_eq!(
        world.agent_says("a1", question(lease, 1)),
        Verdict::Void(VoidReason::LeaseNotCurrent)
    );
    assert_eq!(world.ask(again, "a1"), Verdict::Applied, "its first");
    let withdrawn = ApprovalWithdrawn { lease, approval: 1 };
    assert_eq!(
        world.agent_says("a1", withdrawn),
        Verdict::Void(VoidReason::LeaseNotCurrent)
    );
    let old = ApprovalDecided {
        lease,
        approval: 1,
        answer: Answer::Deny,
        control: None,
        text: None,
    };
    let void = Verdict::Void(VoidReason::LeaseNotCurrent);
    assert_eq!(world.orchestrator(old), void);
}

#[test]
fn a_word_counts_only_from_the_scheduler_to_whom_it_is_for() {
    let (mut world, task, lease) = asking();
    world.join("a2", 4);
    world.tell(task, "be quick");
    let (_, event) = world.words().pop().unwrap();
    let Event::AttemptTold(told) = event else {
        panic!("{event:?}");
    };
    let elsewhere = AttemptTold {
        incarnation: world.state.agents[&agent("a2")].incarnation,
        ..told.clone()
    };
    let void = Verdict::Void;
    assert_eq!(
        world.scheduler("a2", elsewhere),
        void(VoidReason::LeaseNotCurrent)
    );
    let earlier = AttemptTold {
        incarnation: 1,
        ..told.clone()
    };
    assert_eq!(
        world.scheduler("a1", earlier),
        void(VoidReason::StaleIncarnation)
    );
    let never_said = AttemptTold {
        word: Word::Text {
            control: Position::new(1, 0),
            text: "stop".into(),
        },
        ..told.clone()
    };
    assert_eq!(
        world.scheduler("a1", never_said),
        void(VoidReason::NotRequested)
    );
    assert_eq!(world.scheduler("a1", told), Verdict::Applied);
    assert_eq!(world.of(lease.task).aside.words.len(), 0);
}

#[test]
fn no_attempt_asks_or_is_told_without_bound() {
    let mut world = World::new();
    let task = world.task(json!({}));
    let lease = world.run(task, "a1");
    for _ in 0..APPROVALS_MAX {
        assert_eq!(world.ask(lease, "a1"), Verdict::Applied);
        assert_eq!(world.tell(task, "be quick"), Verdict::Applied);
    }
    let void = Verdict::Void;
    assert_eq!(world.ask(lease, "a1"), void(VoidReason::NoCapacity));
    assert_eq!(world.tell(task, "be quick"), void(VoidReason::NoCapacity));
    let long = "x".repeat(5_000);
    assert_eq!(world.tell(task, &long), void(VoidReason::Malformed));
    let mut verbose = question(lease, 99);
    verbose.summary = long;
    assert_eq!(world.agent_says("a1", verbose), void(VoidReason::Malformed));
}

/// Simulation, seed 2: questions that were void for the log's format are asked again in any
/// order, and after others that counted.
#[test]
fn a_number_counts_once_in_whatever_order_they_come() {
    let mut world = World::new();
    let task = world.task(json!({}));
    let lease = world.run(task, "a1");
    let mut ask = |number| world.agent_says("a1", question(lease, number));
    let duplicate = Verdict::Void(VoidReason::Duplicate);
    assert_eq!(ask(3), Verdict::Applied);
    assert_eq!(ask(1), Verdict::Applied);
    assert_eq!(ask(1), duplicate);
    assert_eq!(ask(4), Verdict::Applied);
    assert_eq!(ask(2), Verdict::Applied);
    for number in 0..=4 {
        assert_eq!(ask(number), duplicate, "{number}");
    }
    // Nobody is told which numbers are left out by the thousand.
    assert_eq!(ask(1_000), Verdict::Void(VoidReason::NoCapacity));
    assert_eq!(ask(69), Verdict::Applied);
    assert_eq!(ask(70), Verdict::Applied);
    assert_eq!(ask(72), Verdict::Void(VoidReason::NoCapacity));
}

#[test]
fn why_says_who_is_asked_what_and_until_when() {
    let (mut world, task, lease) = asking();
    let why = explain::why(&world.state, task).unwrap();
    expect_test::expect![[r#"attempt 1 waits for somebody to answer its question 1: "Bash: make"; until 2027-01-15T08:01:00.000Z, then the answer is deny"#]]
        .assert_eq(&why);
    world.ask(lease, "a1");
    let why = explain::why(&world.state, task).unwrap();
    assert!(why.contains("question 1 (and 1 more)"), "{why}");
    world.answer(task, 1, Answer::Allow);
    let why = explain::why(&world.state, task).unwrap();
    assert!(why.contains("has not decided so yet"), "{why}");
}

/// Two logs: one that a new software began, one whose agent knows only the first format.
#[test]
fn the_format_is_raised_once_and_not_before_every_agent_knows_it() {
    use conductor_protocol::event::{AgentJoined, AgentLeft, LogFormat};
    use conductor_protocol::limits::FORMAT_KNOWN;
    use conductor_protocol::subject::Role;
    let mut world = World::empty();
    world.elect(Role::Orchestrator);
    world.elect(Role::Scheduler);
    let old = AgentJoined {
        slots: 1,
        ..AgentJoined::default()
    };
    world.agent_says("old", old);
    assert_eq!(world.decisions(), [], "an agent would not know it");
    let task = world.new_id();
    world.submit(&json!({"id": task, "run": {"noop": {}}}));
    world.settle();
    let void = Verdict::Void(VoidReason::FormatNotReached);
    assert_eq!(world.tell(task, "be quick"), void);
    assert_eq!(world.answer(task, 1, Answer::Allow), void);
    world.agent_says("old", AgentLeft {});
    let raised = Event::from(LogFormat {
        format: FORMAT_KNOWN,
    });
    let input = Input {
        now_ms: world.now_ms,
        silent_agents: &[],
        silent_leases: &[],
        events_max: 1_000,
    };
    let mut overlay = Overlay::default();
    let mut decide = |world: &World| decide::decide(&world.state, &mut overlay, input, &mut || 0);
    assert_eq!(decide(&world), std::slice::from_ref(&raised));
    assert_eq!(decide(&world), [], "it is on its way");
    overlay.on_folded(&raised, Verdict::Void(VoidReason::StaleEpoch));
    let mut decide = |world: &World| decide::decide(&world.state, &mut overlay, input, &mut || 0);
    let again = decide(&world);
    assert_eq!(again, std::slice::from_ref(&raised), "it did not count");
    assert_eq!(world.orchestrator(raised.clone()), Verdict::Applied);
    assert_eq!(world.state.format, FORMAT_KNOWN);
    overlay.on_folded(&raised, Verdict::Applied);
    let again = decide::decide(&world.state, &mut overlay, input, &mut || 0);
    assert_eq!(again, []);
    let twice = world.orchestrator(raised);
    assert_eq!(twice, Verdict::Void(VoidReason::NoChange));
}
