//! What is refused, and how.

use bytes::Bytes;
use conductor_modelproxy::policy::Policy;
use conductor_modelproxy::{KeySource, Report, Terms};
use conductor_protocol::OutcomeClass;
use http_body_util::Full;
use hyper::Request;

use crate::fake::{Attempt, Fake, PLACEHOLDER, REAL_KEY, Said, fixture, messages, post, text};

const ASK: &str = r#"{"model":"claude-sonnet-4-5","messages":[]}"#;

#[tokio::test]
async fn whoever_has_not_the_placeholder_gets_nothing() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(&fake, Terms::default());
    for key in ["", "placeholder-2", REAL_KEY] {
        let mut request = messages(ASK);
        request
            .headers_mut()
            .insert("x-api-key", key.parse().unwrap());
        let answer = attempt.ask(request).await;
        assert_eq!(answer.status(), 401, "{key}");
        assert!(text(answer).await.contains("authentication_error"));
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn paths_that_are_not_for_models_are_refused() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(&fake, Terms::default());
    for path in [
        "/v1/files",
        "/v1/messages/batches",
        "/v1/organizations/me",
        "/openai/v1/files",
        "/",
    ] {
        let answer = attempt.ask(post(path, ASK)).await;
        assert_eq!(answer.status(), 403, "{path}");
        assert!(text(answer).await.contains("is not allowed here"));
    }
    let greeting = Request::head("/").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(
        attempt.ask(greeting).await.status(),
        200,
        "is answered here"
    );
    assert!(fake.seen().is_empty());
}

/// What stands beside the models is asked by the placeholder as a token, and in no other way.
#[tokio::test]
async fn what_stands_beside_the_models_is_for_the_attempt_alone() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(&fake, Terms::default());
    let with = |token: Option<&str>| {
        let mut request = post("/beside", "hello");
        if let Some(token) = token {
            let token = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        request
    };
    for token in [None, Some("placeholder-2"), Some(REAL_KEY)] {
        let answer = attempt.ask(with(token)).await;
        assert_eq!(answer.status(), 401, "{token:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert!(!text(answer).await.contains("hello"));
    }
    let answer = attempt.ask(with(Some(PLACEHOLDER))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await, "hello");
    let other = attempt.ask(post("/beside/further", "hello")).await;
    assert_eq!(other.status(), 403, "a path of its own, and none below");
    assert!(fake.seen().is_empty());
}

/// An attempt that may ask no model has the socket all the same.
#[tokio::test]
async fn without_a_way_out_no_model_is_asked() {
    let fake = Fake::start().await;
    let attempt = Attempt::without_models(&fake);
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 403);
    assert!(text(answer).await.contains("has no key for"));
    let mut beside = post("/beside", "hello");
    let token = format!("Bearer {PLACEHOLDER}").parse().unwrap();
    beside.headers_mut().insert("authorization", token);
    assert_eq!(attempt.ask(beside).await.status(), 200);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn models_that_the_task_may_not_use_are_refused() {
    let fake = Fake::start().await;
    let policy = Policy {
        models: vec!["claude-haiku-4-5".into()],
        ..Policy::default()
    };
    let mut attempt = Attempt::start(
        &fake,
        Terms {
            policy,
            ..Terms::default()
        },
    );
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 403);
    assert!(text(answer).await.contains("it may use claude-haiku-4-5"));
    assert!(matches!(
        attempt.report().await,
        Report::Refused(OutcomeClass::Denied, _)
    ));
    let answer = attempt.ask(post("/v1/messages/count_tokens", ASK)).await;
    assert_eq!(answer.status(), 403);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn money_is_not_spent_where_the_price_is_not_known() {
    let fake = Fake::start().await;
    let policy = Policy {
        counts_money: true,
        ..Policy::default()
    };
    let mut attempt = Attempt::start(
        &fake,
        Terms {
            policy,
            ..Terms::default()
        },
    );
    let answer = attempt
        .ask(messages(r#"{"model":"claude-next-1","messages":[]}"#))
        .await;
    assert_eq!(answer.status(), 403);
    assert!(text(answer).await.contains("CONDUCTOR_PRICES"));
    assert!(matches!(
        attempt.report().await,
        Report::Refused(OutcomeClass::Budget, _)
    ));
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_key_that_is_refused_is_a_403_so_that_nobody_tries_again() {
    let fake = Fake::start().await;
    fake.will_say(Said::whole(401, "application/json", "{}"));
    let mut attempt = Attempt::start(&fake, Terms::default());
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["x-should-retry"], "false");
    let said = text(answer).await;
    assert!(
        said.contains("refused the agent's key") && !said.contains(REAL_KEY),
        "{said}"
    );
    assert!(matches!(
        attempt.report().await,
        Report::Refused(OutcomeClass::Auth, _)
    ));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_key_that_was_changed_is_tried_once() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("n");
    let line = format!("echo x >> {0}; echo key-$(wc -l < {0})", count.display());
    let attempt = Attempt::with_keys(&fake, Terms::default(), &KeySource::Command(line));
    fake.will_say(Said::whole(401, "application/json", "{}"));
    fake.will_say(Said::whole(
        200,
        "application/json",
        fixture("anthropic-messages.json"),
    ));
    assert_eq!(attempt.ask(messages(ASK)).await.status(), 200);
    let keys: Vec<_> = fake
        .seen()
        .iter()
        .map(|s| s.headers["x-api-key"].clone())
        .collect();
    assert_eq!(keys, ["key-1", "key-2"]);
    fake.will_say(Said::whole(401, "application/json", "{}"));
    fake.will_say(Said::whole(401, "application/json", "{}"));
    assert_eq!(attempt.ask(messages(ASK)).await.status(), 403);
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn a_key_that_cannot_be_had_is_an_end_too() {
    let fake = Fake::start().await;
    let source = KeySource::File("/nonexistent/key".into());
    let mut attempt = Attempt::with_keys(&fake, Terms::default(), &source);
    assert_eq!(attempt.ask(messages(ASK)).await.status(), 403);
    assert!(matches!(
        attempt.report().await,
        Report::Refused(OutcomeClass::Auth, _)
    ));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_held() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(&fake, Terms::default());
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(33 << 20));
    let answer = attempt.connect().await.send_request(messages(&large)).await;
    // It may be told so before it has sent everything.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 413);
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_502() {
    let mut fake = Fake::start().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    fake.url = url;
    let attempt = Attempt::start(&fake, Terms::default());
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 502);
    assert!(text(answer).await.contains("cannot be reached"));
}
