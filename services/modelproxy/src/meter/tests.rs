use super::*;
use proptest::prelude::*;

const SSE: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

/// Answers in the providers' documented shapes, and what each took.
fn fixtures() -> [(Api, &'static str, &'static [u8], &'static str, Tokens); 6] {
    let tokens = |input, cached, output| Tokens {
        input,
        cached,
        output,
        ..Tokens::default()
    };
    let written = Tokens {
        cache_write: 200,
        cache_write_hour: 100,
        ..tokens(1500, 8000, 42)
    };
    macro_rules! bytes {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/fixtures/", $name))
        };
    }
    [
        (
            Api::Messages,
            SSE,
            bytes!("anthropic-messages.sse"),
            "claude-sonnet-4-5-20250929",
            written,
        ),
        (
            Api::Messages,
            JSON,
            bytes!("anthropic-messages.json"),
            "claude-haiku-4-5-20251001",
            tokens(12, 0, 7),
        ),
        (
            Api::Responses,
            SSE,
            bytes!("openai-responses.sse"),
            "gpt-5.1-codex",
            tokens(500, 1000, 42),
        ),
        (
            Api::Responses,
            JSON,
            bytes!("openai-responses.json"),
            "gpt-5.1-codex",
            tokens(500, 1000, 42),
        ),
        (
            Api::Chat,
            SSE,
            bytes!("openai-chat.sse"),
            "gpt-4o-2024-08-06",
            tokens(100, 20, 9),
        ),
        (
            Api::Chat,
            JSON,
            bytes!("openai-chat.json"),
            "gpt-4o-2024-08-06",
            tokens(100, 20, 9),
        ),
    ]
}

fn read(api: Api, kind: &str, chunks: &[&[u8]]) -> Answered {
    let mut meter = Meter::new(api, kind, 400);
    for chunk in chunks {
        meter.push(chunk);
    }
    meter.finish()
}

#[test]
fn what_answers_took_is_read_from_them() {
    for (api, kind, body, model, tokens) in fixtures() {
        let answered = read(api, kind, &[body]);
        let expected = Answered {
            model: Some(model.to_owned()),
            tokens,
            is_counted: true,
        };
        assert_eq!(answered, expected, "{api:?} {kind}");
    }
}

/// Where `needle` begins in `body`.
fn find(body: &[u8], needle: &str) -> usize {
    let needle = needle.as_bytes();
    body.windows(needle.len())
        .position(|w| w == needle)
        .unwrap()
}

#[test]
fn an_answer_that_broke_off_is_estimated() {
    let (api, kind, body, ..) = fixtures()[0];
    let answered = read(api, kind, &[&body[..find(body, "event: message_delta")]]);
    assert!(!answered.is_counted);
    assert_eq!(
        (answered.tokens.input, answered.tokens.cached),
        (1500, 8000)
    );
    assert_eq!(answered.tokens.output, 3, "as many as pieces were seen");

    let (api, kind, body, ..) = fixtures()[2];
    let answered = read(
        api,
        kind,
        &[&body[..find(body, "event: response.completed")]],
    );
    assert!(!answered.is_counted);
    assert_eq!(
        answered.tokens.input, 100,
        "a token for each four bytes that were asked"
    );
    assert_eq!(answered.tokens.output, 2);
}

#[test]
fn what_is_no_answer_counts_as_little_as_can_be_said() {
    let answered = read(Api::Messages, JSON, &[b"<html>sorry</html>"]);
    assert_eq!(
        (
            answered.is_counted,
            answered.tokens.input,
            answered.tokens.output
        ),
        (false, 100, 4)
    );
    assert_eq!(
        read(
            Api::Chat,
            SSE,
            &[b"data: {\"usage\":7}\n\ndata: [DONE]\n\n"]
        )
        .tokens
        .input,
        100
    );
}

#[test]
fn an_event_that_is_too_large_to_be_held_is_estimated() {
    let mut meter = Meter::new(Api::Responses, SSE, 400);
    meter.push(b"data: {\"type\":\"response.completed\",\"response\":{\"output\":\"");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..17 {
        meter.push(&chunk);
    }
    meter.push(b"\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n");
    assert!(!meter.finish().is_counted);
}

proptest! {
    #[test]
    fn usage_does_not_depend_on_how_bytes_arrive(
        which in 0_usize..6,
        cuts in proptest::collection::vec(0_usize..4000, 0..12),
    ) {
        let (api, kind, body, ..) = fixtures()[which];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(body.len())).collect();
        cuts.sort_unstable();
        let (mut chunks, mut from) = (Vec::new(), 0);
        for cut in cuts {
            chunks.push(&body[from..cut]);
            from = cut;
        }
        chunks.push(&body[from..]);
        prop_assert_eq!(read(api, kind, &chunks), read(api, kind, &[body]));
    }

    #[test]
    fn no_answer_stops_the_meter(body in proptest::collection::vec(any::<u8>(), 0..500), is_stream: bool) {
        for api in [Api::Messages, Api::Responses, Api::Chat] {
            let _ = read(api, if is_stream { SSE } else { JSON }, &[&body]);
        }
    }
}
