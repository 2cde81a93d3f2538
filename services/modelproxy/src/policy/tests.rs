use super::*;

fn purpose_of(method: &str, path: &str) -> Result<(Provider, Purpose, String), u16> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let route = route(&method, path).map_err(|r| r.status)?;
    Ok((route.provider, route.purpose, route.path))
}

#[test]
fn only_what_is_known_is_passed_on() {
    use Provider::{Anthropic, OpenAi};
    let messages = Purpose::Answer(Api::Messages);
    for (method, path, expected) in [
        (
            "POST",
            "/v1/messages",
            Ok((Anthropic, messages, "/v1/messages")),
        ),
        ("HEAD", "/", Ok((Anthropic, Purpose::Greeting, "/"))),
        (
            "GET",
            "/v1/models",
            Ok((Anthropic, Purpose::List, "/v1/models")),
        ),
        (
            "GET",
            "/v1/models/claude-x",
            Ok((Anthropic, Purpose::List, "/v1/models/claude-x")),
        ),
        (
            "POST",
            "/openai/v1/responses",
            Ok((OpenAi, Purpose::Answer(Api::Responses), "/responses")),
        ),
        (
            "POST",
            "/openai/v1/chat/completions",
            Ok((OpenAi, Purpose::Answer(Api::Chat), "/chat/completions")),
        ),
        (
            "GET",
            "/openai/v1/models",
            Ok((OpenAi, Purpose::List, "/models")),
        ),
        ("GET", "/v1/messages", Err(403)),
        ("POST", "/v1/messages/batches", Err(403)),
        ("POST", "/v1/messages/", Err(403)),
        ("POST", "//v1/messages", Err(403)),
        ("POST", "/v1/files", Err(403)),
        ("GET", "/v1/organizations/api_keys", Err(403)),
        ("GET", "/v1/models/../organizations", Err(403)),
        ("GET", "/v1/models/..", Err(403)),
        ("GET", "/v1/models/%2e%2e", Err(403)),
        ("DELETE", "/v1/models/claude-x", Err(403)),
        ("GET", "/openai/v1/responses/resp_1", Err(403)),
        ("POST", "/openai/v1/embeddings", Err(403)),
        ("POST", "/openai/v10/responses", Err(403)),
    ] {
        let expected = expected.map(|(p, u, path): (_, _, &str)| (p, u, path.to_owned()));
        assert_eq!(purpose_of(method, path), expected, "{method} {path}");
    }
}

fn check(policy: &Policy, body: &str) -> Result<Asked, u16> {
    let purpose = Purpose::Answer(Api::Messages);
    policy.check(purpose, body.as_bytes()).map_err(|r| r.status)
}

#[test]
fn a_task_uses_the_models_it_may() {
    let policy = Policy {
        models: vec!["claude-haiku-4-5".into(), "gpt-5*".into()],
        ..Policy::default()
    };
    for (model, is_allowed) in [
        ("claude-haiku-4-5", true),
        ("claude-haiku-4-5-20251001", true),
        ("claude-haiku-4-5-latest", true),
        ("claude-haiku-4-5[1m]", true),
        ("claude-haiku-4-5-turbo", false),
        ("claude-haiku-4", false),
        ("claude-opus-5", false),
        ("gpt-5.1-codex", true),
        ("gpt-4o", false),
    ] {
        let asked = check(&policy, &format!(r#"{{"model":"{model}","messages":[]}}"#));
        assert_eq!(
            asked.map(|a| a.model),
            if is_allowed {
                Ok(model.to_owned())
            } else {
                Err(403)
            }
        );
    }
    assert!(check(&Policy::default(), r#"{"model":"any"}"#).is_ok());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let policy = Policy {
        models: vec!["cheap".into()],
        ..Policy::default()
    };
    for body in [
        r#"{"model":"cheap","model":"dear"}"#,
        r#"{"messages":[]}"#,
        r#"{"model":7}"#,
        "not json",
        "",
        r#"{"model":"cheap"} {"model":"dear"}"#,
    ] {
        assert_eq!(check(&policy, body), Err(400), "{body}");
    }
}

#[test]
fn the_provider_is_no_way_round_the_network_that_is_closed() {
    let closed = Policy::default();
    let open = Policy {
        may_reach_out: true,
        ..Policy::default()
    };
    for body in [
        r#"{"model":"m","mcp_servers":[{"type":"url","url":"https://evil.example"}]}"#,
        r#"{"model":"m","tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}"#,
        r#"{"model":"m","tools":[{"name":"a"},{"type":"mcp","server_url":"https://evil.example"}]}"#,
    ] {
        assert_eq!(check(&closed, body), Err(403), "{body}");
        assert!(check(&open, body).is_ok(), "{body}");
    }
    let harmless = r#"{"model":"m","mcp_servers":[],"tools":[{"name":"Bash","input_schema":{}},{"type":"function"}]}"#;
    assert!(check(&closed, harmless).is_ok());
}

#[test]
fn what_cannot_be_metered_or_priced_is_refused() {
    let money = Policy {
        counts_money: true,
        ..Policy::default()
    };
    assert_eq!(
        check(&Policy::default(), r#"{"model":"m","background":true}"#),
        Err(403)
    );
    let fast = r#"{"model":"m","service_tier":"priority"}"#;
    assert_eq!(check(&money, fast), Err(403));
    assert_eq!(check(&money, r#"{"model":"m","speed":"fast"}"#), Err(403));
    assert!(check(&Policy::default(), fast).is_ok());
    assert!(check(&money, r#"{"model":"m","service_tier":"auto"}"#).is_ok());
}

#[test]
fn a_stream_of_chat_has_to_ask_for_its_usage() {
    let lacks = |body: &str| {
        let policy = Policy::default();
        let asked = policy.check(Purpose::Answer(Api::Chat), body.as_bytes());
        asked.unwrap().lacks_usage
    };
    assert!(lacks(r#"{"model":"m","stream":true}"#));
    assert!(lacks(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":false}}"#
    ));
    assert!(!lacks(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#
    ));
    assert!(!lacks(r#"{"model":"m"}"#));
}
