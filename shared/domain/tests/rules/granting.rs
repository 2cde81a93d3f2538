//! What people say of budgets that are used up, and what another budget or another day makes of it.

use conductor_domain::{Verdict, VoidReason, explain};
use conductor_protocol::control::OnReached;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass};
use serde_json::json;

use super::budgets::{
    answer, assert_replay_agrees, failure, is_planned, reached, spent, team, tomorrow, void,
};
use super::sharing::{DAY_MS, model, put, uses};
use super::world::{START_MS, World};

#[test]
fn people_may_allow_as_much_again() {
    let (mut world, lease) = spent("ask");
    let not_asked = void(VoidReason::NotAsked);
    assert_eq!(
        answer(&mut world, Answer::Allow, None),
        not_asked,
        "not yet"
    );
    let second = model(&mut world, "team");
    assert_eq!(world.phase(second), "ready");
    assert!(!is_planned(&world, second));
    let why = explain::why(&world.state, second).unwrap();
    expect_test::expect!["namespace team has used up its budget of the day (1000 of 1000 tokens); people are asked whether it may spend as much again (`conductor approvals approve --namespace team`); else it goes on at 2027-01-16T00:00:00.000Z, or with a higher budget"].assert_eq(&why);
    let questions = world.state.budget_questions(world.now_ms);
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].namespace, team());
    assert_eq!(questions[0].asked_ms, START_MS);
    assert_eq!(questions[0].expires_ms, tomorrow(&world));
    assert_eq!(questions[0].account, "1000 of 1000 tokens");
    assert_eq!(
        answer(&mut world, Answer::Allow, Some("go on")),
        Verdict::Applied
    );
    world.settle();
    assert_eq!(world.state.budget_questions(world.now_ms), []);
    assert!(is_planned(&world, second));
    assert_eq!(answer(&mut world, Answer::Allow, None), not_asked, "once");
    uses(&mut world, lease, 0.0, 1_999);
    assert_eq!(world.decisions(), [], "it had a thousand more");
    // Used up again, that is said again, and asked again.
    uses(&mut world, lease, 0.0, 2_000);
    assert!(!is_planned(&world, second));
    let said = reached(&world);
    assert_eq!((said.spent.tokens, said.limit.tokens), (2_000, Some(2_000)));
    world.settle();
    assert_eq!(answer(&mut world, Answer::Allow, None), Verdict::Applied);
    uses(&mut world, lease, 0.0, 2_999);
    assert!(is_planned(&world, second));
    uses(&mut world, lease, 0.0, 3_000);
    assert_eq!(reached(&world).limit.tokens, Some(3_000));
    assert_replay_agrees(&world);
}

#[test]
fn what_people_deny_fails() {
    let (mut world, _) = spent("ask");
    let second = model(&mut world, "team");
    let program = world.task(json!({"namespace": "team"}));
    let long = "x".repeat(WORD_BYTES_MAX + 1);
    let malformed = void(VoidReason::Malformed);
    assert_eq!(answer(&mut world, Answer::Deny, Some(&long)), malformed);
    let other = Control::DecideBudget {
        namespace: "other".parse().unwrap(),
        answer: Answer::Deny,
        text: None,
    };
    assert_eq!(world.control(&other), void(VoidReason::NotAsked));
    // The longest one, and one that takes ten bytes a character once it is quoted.
    for wordy in ["x".repeat(WORD_BYTES_MAX), "\u{10ffff}".repeat(120)] {
        let mut world = world.clone();
        let verdict = answer(&mut world, Answer::Deny, Some(&wordy));
        assert_eq!(verdict, Verdict::Applied);
        world.settle();
        let (_, reason) = failure(&world, second);
        assert!(reason.len() < 400, "{reason}");
        assert!(reason.ends_with("do not wait for the next"), "{reason}");
    }
    let verdict = answer(&mut world, Answer::Deny, Some("enough for today"));
    assert_eq!(verdict, Verdict::Applied);
    let why = explain::why(&world.state, second).unwrap();
    assert!(why.contains("has not decided yet that it fails"), "{why}");
    assert_eq!(world.state.budget_questions(world.now_ms), []);
    world.settle();
    assert_eq!(
        (world.phase(second), world.phase(program)),
        ("failed", "ready")
    );
    let (class, reason) = failure(&world, second);
    assert_eq!(class, OutcomeClass::Budget);
    expect_test::expect![[r#"namespace team has used up its budget of the day (1000 of 1000 tokens), and was not allowed as much again ("enough for today"); tasks that need a model do not wait for the next"#]].assert_eq(&reason);
    let third = model(&mut world, "team");
    assert_eq!(world.phase(third), "failed");
    // The first answer counts, and another budget is the way back.
    let answered = void(VoidReason::Answered);
    for again in [Answer::Allow, Answer::Deny] {
        assert_eq!(answer(&mut world, again, None), answered);
    }
    assert_replay_agrees(&world);
}

#[test]
fn nobody_is_asked_where_the_policy_does_not_say_so() {
    for policy in ["wait", "fail"] {
        let (mut world, _) = spent(policy);
        world.settle();
        assert!(world.state.budget_reached(&team(), world.now_ms).is_some());
        assert_eq!(world.state.budget_questions(world.now_ms), []);
        for said in [Answer::Allow, Answer::Deny] {
            let not_asked = void(VoidReason::NotAsked);
            assert_eq!(answer(&mut world, said, None), not_asked, "{policy}");
        }
    }
}

#[test]
fn another_budget_begins_anew() {
    let (mut world, lease) = spent("ask");
    world.settle();
    answer(&mut world, Answer::Allow, None);
    uses(&mut world, lease, 0.0, 2_000);
    world.settle();
    answer(&mut world, Answer::Deny, None);
    assert_eq!(world.state.spend.granted[&team()], 1);
    // That of another namespace, and other settings, change nothing.
    let before = world.state.spend.clone();
    put(
        &mut world,
        json!({"namespace_budget": {"x": {"usd_per_day": 1}}, "aging": "9s"}),
    );
    assert_eq!(world.state.spend, before);
    let again = |policy: &str, tokens: u64| {
        let mut world = world.clone();
        let budget = json!({"tokens_per_day": tokens, "on_reached": policy});
        put(&mut world, json!({"namespace_budget": {"team": budget}}));
        assert!(world.state.spend.reached.is_empty() && world.state.spend.granted.is_empty());
        world
    };
    let same = reached(&again("ask", 1_000));
    assert_eq!(
        (same.limit.tokens, same.on_reached),
        (Some(1_000), OnReached::Ask)
    );
    assert_eq!(reached(&again("wait", 1_500)).on_reached, OnReached::Wait);
    assert_eq!(again("ask", 2_001).decisions(), []);
    // Whether it limits nothing or is not there is the same.
    for none in [json!({}), json!({"on_reached": "fail"})] {
        let mut free = world.clone();
        put(&mut free, json!({"namespace_budget": {"team": none}}));
        assert!(!free.state.config.namespace_budget.contains_key("team"));
        assert_eq!(free.decisions(), []);
        let task = model(&mut free, "team");
        assert!(is_planned(&free, task));
    }
}

#[test]
fn what_was_noted_on_a_day_says_nothing_of_the_next() {
    let (mut world, lease) = spent("ask");
    world.settle();
    answer(&mut world, Answer::Allow, None);
    uses(&mut world, lease, 0.0, 2_000);
    world.settle();
    let second = model(&mut world, "team");
    let mut denied = world.clone();
    answer(&mut denied, Answer::Deny, None);
    for mut world in [world, denied] {
        // The scheduler goes by its own clock, the fold by the record's time.
        world.now_ms = tomorrow(&world);
        assert_eq!(
            world.state.budgets_renewed_ms(world.now_ms - 1),
            Some(world.now_ms)
        );
        let mut bounds = super::world::bounds(10);
        bounds.now_ms = world.now_ms;
        let mut overlay = conductor_domain::plan::Overlay::default();
        let planned = conductor_domain::plan::plan(&world.state, &mut overlay, bounds);
        assert_eq!(planned.len(), 1);
        assert_eq!(world.state.budget_questions(world.now_ms), []);
        // What is decided late is void, and is not decided again.
        let late = world.decisions();
        for event in late {
            let not_so = void(VoidReason::NotPending);
            assert_eq!(world.orchestrator(event), not_so);
        }
        let not_asked = void(VoidReason::NotAsked);
        assert_eq!(answer(&mut world, Answer::Allow, None), not_asked);
        assert_eq!(world.decisions(), []);
        let assignment = world.assignment(second, "a1");
        assert_eq!(world.scheduler("a1", assignment), Verdict::Applied);
        // Of what people allowed yesterday nothing is left.
        uses(&mut world, lease, 0.0, 3_000);
        let said = reached(&world);
        assert_eq!(
            (said.day, said.limit.tokens),
            (START_MS / DAY_MS + 1, Some(1_000))
        );
        assert_eq!(world.orchestrator(said), Verdict::Applied);
        assert!(world.state.spend.granted.is_empty());
        assert_replay_agrees(&world);
    }
}

/// A budget of nothing is used up every day anew, whether or not anything is spent; a clock that is
/// ahead of the log has nothing decided for a day that has not begun.
#[test]
fn a_budget_of_nothing_is_used_up_every_day() {
    let mut world = World::new();
    put(
        &mut world,
        json!({"namespace_budget": {"team": {"turns_per_day": 0, "on_reached": "fail"}}}),
    );
    let first = model(&mut world, "team");
    assert_eq!(world.phase(first), "failed");
    world.now_ms = tomorrow(&world);
    assert_eq!(
        world.decisions(),
        [],
        "no record says that it is another day"
    );
    let second = world.task(json!({"namespace": "team"}));
    let noted = world.state.budget_reached(&team(), world.now_ms);
    assert_eq!(noted.map(|r| r.at_ms), Some(world.now_ms));
    assert_eq!(world.phase(second), "ready");
    let third = model(&mut world, "team");
    assert_eq!(world.phase(third), "failed");
    assert_replay_agrees(&world);
}

/// Whatever stands in a setting: a name that no task can have, and figures that are none.
#[test]
fn budgets_of_impossible_namespaces_are_harmless() {
    let mut world = World::new();
    let long = "x".repeat(200_000);
    let verdict = put(
        &mut world,
        json!({"namespace_budget": {
            "a b": {"usd_per_day": -1, "on_reached": "fail"},
            "": {"turns_per_day": 0},
            long: {"turns_per_day": 0},
        }}),
    );
    assert_eq!(verdict, Verdict::Applied);
    // An event that repeated the last of them would be refused by the log for ever.
    assert_eq!(world.decisions(), []);
    let task = model(&mut world, "a");
    assert!(is_planned(&world, task));
    let subject = "conductor.test.control".to_owned();
    let unknown = br#"{"type":"config.put","namespace_budget":{"a":{"turns_per_day":0,"on_reached":"explode"}}}"#;
    assert_eq!(
        world.raw(subject, unknown.to_vec()),
        [void(VoidReason::Malformed)]
    );
    assert!(!world.state.config.namespace_budget.contains_key("a"));
}
