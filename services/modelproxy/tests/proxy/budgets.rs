//! Budgets: nothing is asked beyond them.

use std::time::Duration;

use conductor_modelproxy::{Limit, Report, Terms};
use conductor_protocol::event::Usage;
use conductor_protocol::terms::{Budget, OnReached};

use crate::fake::{Attempt, Fake, Said, fixture, messages, text};

const ASK: &str = r#"{"model":"claude-haiku-4-5","messages":[]}"#;

fn turns(turns: u64, on_reached: OnReached) -> Budget {
    Budget {
        turns: Some(turns),
        on_reached,
        ..Budget::default()
    }
}

fn will_answer(fake: &Fake, times: usize) {
    for _ in 0..times {
        fake.will_say(Said::whole(
            200,
            "application/json",
            fixture("anthropic-messages.json"),
        ));
    }
}

#[tokio::test]
async fn what_is_beyond_a_budget_is_a_403_and_never_asked() {
    let fake = Fake::start().await;
    will_answer(&fake, 3);
    let budget = Budget {
        tokens: Some(100 + 2 * 19),
        ..Budget::default()
    };
    // Two answers of 19 tokens are left of what earlier attempts did not use.
    let before = Usage {
        input_tokens: 100,
        cached_tokens: 1 << 40,
        ..Usage::default()
    };
    let mut attempt = Attempt::start(
        &fake,
        Terms {
            budget,
            before,
            ..Terms::default()
        },
    );
    for _ in 0..2 {
        let answer = attempt.ask(messages(ASK)).await;
        assert_eq!(answer.status(), 200);
        text(answer).await;
        assert!(matches!(attempt.report().await, Report::Metered(_)));
    }
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 403);
    let said = text(answer).await;
    assert!(
        said.contains("the task's budget is used up: 138 of 138 tokens"),
        "{said}"
    );
    let reached = Report::Reached {
        limit: Limit::Tokens,
        account: "138 of 138 tokens".into(),
        is_held: false,
    };
    assert_eq!(attempt.report().await, reached);
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn an_answer_under_way_is_let_finish() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(
        &fake,
        Terms {
            budget: turns(1, OnReached::Fail),
            ..Terms::default()
        },
    );
    let (pieces, said) = Said::stream();
    fake.will_say(said);
    let under_way = attempt.ask(messages(ASK)).await;
    will_answer(&fake, 1);
    text(attempt.ask(messages(ASK)).await).await;
    assert_eq!(attempt.ask(messages(ASK)).await.status(), 403);
    pieces.send(fixture("anthropic-messages.sse")).unwrap();
    drop(pieces);
    assert_eq!(
        text(under_way).await.as_bytes(),
        fixture("anthropic-messages.sse")
    );
    assert_eq!(attempt.proxy.usage().turns, 2);
}

#[tokio::test]
async fn what_is_held_goes_on_when_more_is_allowed() {
    let fake = Fake::start().await;
    will_answer(&fake, 3);
    let budget = turns(1, OnReached::Ask);
    let mut attempt = Attempt::start(
        &fake,
        Terms {
            budget,
            ..Terms::default()
        },
    );
    text(attempt.ask(messages(ASK)).await).await;
    attempt.report().await;
    // Two ask; somebody is asked once.
    let (mut one, mut two) = (attempt.connect().await, attempt.connect().await);
    let mut one =
        tokio::spawn(async move { one.send_request(messages(ASK)).await.unwrap().status() });
    let Report::Reached { is_held: true, .. } = attempt.report().await else {
        panic!("somebody is asked")
    };
    let two = tokio::spawn(async move { two.send_request(messages(ASK)).await.unwrap().status() });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut one).await;
    assert!(early.is_err(), "it waits");
    assert_eq!(fake.seen().len(), 1);
    assert!(attempt.reports.try_recv().is_err());
    attempt.proxy.extend(&Budget {
        turns: Some(2),
        ..Budget::default()
    });
    assert_eq!(
        (one.await.unwrap(), two.await.unwrap()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
}

#[tokio::test]
async fn what_is_held_is_refused_when_no_more_is_allowed() {
    let fake = Fake::start().await;
    will_answer(&fake, 1);
    let budget = turns(1, OnReached::Ask);
    let mut attempt = Attempt::start(
        &fake,
        Terms {
            budget,
            ..Terms::default()
        },
    );
    text(attempt.ask(messages(ASK)).await).await;
    attempt.report().await;
    let mut sender = attempt.connect().await;
    let held =
        tokio::spawn(async move { sender.send_request(messages(ASK)).await.unwrap().status() });
    assert!(matches!(
        attempt.report().await,
        Report::Reached { is_held: true, .. }
    ));
    attempt.proxy.deny();
    assert_eq!(held.await.unwrap(), 403);
    assert!(matches!(
        attempt.report().await,
        Report::Reached { is_held: false, .. }
    ));
    assert_eq!(fake.seen().len(), 1);
}
