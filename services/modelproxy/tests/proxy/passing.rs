//! What is passed on, and what is counted of it.

use std::time::Duration;

use bytes::Bytes;
use conductor_modelproxy::{Report, Terms};
use http_body_util::BodyExt;

use crate::fake::{Attempt, Fake, PLACEHOLDER, REAL_KEY, Said, fixture, messages, post, text};

const ASK: &str =
    r#"{"model":"claude-sonnet-4-5","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

#[tokio::test]
async fn the_key_is_swapped_and_the_rest_arrives_as_it_was() {
    let fake = Fake::start().await;
    fake.will_say(Said::whole(
        200,
        "application/json",
        fixture("anthropic-messages.json"),
    ));
    let mut attempt = Attempt::start(&fake, Terms::default());
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        text(answer).await.as_bytes(),
        fixture("anthropic-messages.json")
    );
    let seen = fake.seen().remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/v1/messages?beta=true")
    );
    assert_eq!(seen.body, ASK);
    assert_eq!(seen.headers["x-api-key"], REAL_KEY);
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert_eq!(seen.headers["x-claude-code-session-id"], "s-1");
    assert!(
        seen.headers["host"]
            .to_str()
            .unwrap()
            .starts_with("127.0.0.1")
    );
    let headers = format!("{:?}", seen.headers);
    assert!(!headers.contains(PLACEHOLDER), "{headers}");
    let Report::Metered(usage) = attempt.report().await else {
        panic!("it is metered")
    };
    assert_eq!(
        (usage.turns, usage.input_tokens, usage.output_tokens),
        (1, 12, 7)
    );
    assert_eq!(usage.model.as_deref(), Some("claude-haiku-4-5-20251001"));
    assert!((usage.cost_usd - 47e-6).abs() < 1e-12, "{usage:?}");
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_byte_for_byte() {
    let fake = Fake::start().await;
    let (pieces, said) = Said::stream();
    fake.will_say(said);
    let mut attempt = Attempt::start(&fake, Terms::default());
    let mut answer = attempt.ask(messages(ASK)).await;
    let all = fixture("anthropic-messages.sse");
    let mut got = Vec::new();
    for chunk in all.chunks(97) {
        pieces.send(Bytes::copy_from_slice(chunk)).unwrap();
        // Each arrives before the next is sent: nothing is held back.
        let end = got.len() + chunk.len();
        while got.len() < end {
            let frame = tokio::time::timeout(Duration::from_secs(20), answer.frame());
            got.extend_from_slice(&frame.await.unwrap().unwrap().unwrap().into_data().unwrap());
        }
    }
    drop(pieces);
    assert!(answer.frame().await.is_none());
    assert_eq!(got, all);
    let Report::Metered(usage) = attempt.report().await else {
        panic!("it is metered")
    };
    assert_eq!((usage.input_tokens, usage.cached_tokens), (1500, 8000));
    assert_eq!((usage.cache_write_tokens, usage.output_tokens), (300, 42));
    assert_eq!(attempt.proxy.usage(), usage);
}

#[tokio::test]
async fn usage_is_counted_before_the_client_knows_the_end() {
    let fake = Fake::start().await;
    let mut attempt = Attempt::start(&fake, Terms::default());
    for n in 1..=5 {
        fake.will_say(Said::whole(
            200,
            "text/event-stream",
            fixture("openai-responses.sse"),
        ));
        let ask = r#"{"model":"gpt-5.1-codex","stream":true,"input":[]}"#;
        text(attempt.ask(post("/openai/v1/responses", ask)).await).await;
        assert_eq!(attempt.proxy.usage().turns, n);
        attempt.report().await;
    }
    assert_eq!(fake.seen()[0].path, "/v1/responses");
    let usage = attempt.proxy.usage();
    assert_eq!(
        (usage.input_tokens, usage.cached_tokens, usage.output_tokens),
        (2500, 5000, 210)
    );
}

#[tokio::test]
async fn a_stream_of_chat_is_made_to_end_with_its_usage() {
    let fake = Fake::start().await;
    fake.will_say(Said::whole(
        200,
        "text/event-stream",
        fixture("openai-chat.sse"),
    ));
    let mut attempt = Attempt::start(&fake, Terms::default());
    let ask = r#"{"model":"gpt-4o","stream":true,"messages":[]}"#;
    let mut request = post("/openai/v1/chat/completions", ask);
    let bearer = format!("Bearer {PLACEHOLDER}").parse().unwrap();
    request.headers_mut().remove("x-api-key");
    request.headers_mut().insert("authorization", bearer);
    text(attempt.ask(request).await).await;
    let sent: serde_json::Value = serde_json::from_slice(&fake.seen()[0].body).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    let Report::Metered(usage) = attempt.report().await else {
        panic!("it is metered")
    };
    assert_eq!(
        (usage.input_tokens, usage.cached_tokens, usage.output_tokens),
        (100, 20, 9)
    );
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_answer_which_still_counts() {
    let mut fake = Fake::start().await;
    let (pieces, said) = Said::stream();
    fake.will_say(said);
    let mut attempt = Attempt::start(&fake, Terms::default());
    let mut sender = attempt.connect().await;
    let mut answer = sender.send_request(messages(ASK)).await.unwrap();
    let all = fixture("anthropic-messages.sse");
    let begin = all.slice(..900);
    pieces.send(begin).unwrap();
    answer.frame().await.unwrap().unwrap();
    drop((sender, answer));
    // It notices when it writes.
    let noticed = async {
        loop {
            let ping = Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
            let _ = pieces.send(ping);
            if fake.broken.try_recv().is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed)
        .await
        .expect("the provider is let go");
    let Report::Metered(usage) = attempt.report().await else {
        panic!("it is metered")
    };
    assert_eq!((usage.turns, usage.input_tokens), (1, 1500));
    assert!(usage.output_tokens >= 1);
}

#[tokio::test]
async fn what_is_under_way_when_an_attempt_ends_is_counted() {
    let fake = Fake::start().await;
    let (pieces, said) = Said::stream();
    fake.will_say(said);
    let mut attempt = Attempt::start(&fake, Terms::default());
    let mut answer = attempt.ask(messages(ASK)).await;
    pieces
        .send(fixture("anthropic-messages.sse").slice(..900))
        .unwrap();
    answer.frame().await.unwrap().unwrap();
    assert_eq!(attempt.proxy.usage().turns, 0);
    attempt.proxy.close().await;
    let usage = attempt.proxy.usage();
    assert_eq!((usage.turns, usage.input_tokens), (1, 1500));
}

#[tokio::test]
async fn many_ask_at_once() {
    let fake = Fake::start().await;
    let attempt = Attempt::start(&fake, Terms::default());
    let mut streams = Vec::new();
    for _ in 0..8 {
        let (pieces, said) = Said::stream();
        fake.will_say(said);
        streams.push((pieces, attempt.ask(messages(ASK)).await));
    }
    for (pieces, answer) in streams.into_iter().rev() {
        pieces.send(fixture("anthropic-messages.sse")).unwrap();
        drop(pieces);
        assert_eq!(
            text(answer).await.as_bytes(),
            fixture("anthropic-messages.sse")
        );
    }
    assert_eq!(attempt.proxy.usage().turns, 8);
}

#[tokio::test]
async fn errors_of_the_provider_pass_and_cost_nothing() {
    let fake = Fake::start().await;
    let mut attempt = Attempt::start(&fake, Terms::default());
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#;
    fake.will_say(Said::whole(529, "application/json", error));
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(answer.status(), 529);
    assert_eq!(text(answer).await, error);
    let mut throttled = Said::whole(429, "application/json", error);
    throttled.headers.push(("retry-after", "7".to_owned()));
    fake.will_say(throttled);
    let answer = attempt.ask(messages(ASK)).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    let Report::Throttled {
        until_ms: Some(until),
    } = attempt.report().await
    else {
        panic!("it is told until when")
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let ahead = until.saturating_sub(now.as_millis() as u64);
    assert!((1..=7_000).contains(&ahead), "{ahead}");
    assert_eq!(attempt.proxy.usage().turns, 0);
}
