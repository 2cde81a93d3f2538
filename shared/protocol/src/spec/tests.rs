use super::*;

#[test]
fn backoff_grows_to_its_cap() {
    let policy = RetryPolicy {
        max_attempts: 9,
        ..RetryPolicy::default()
    };
    assert_eq!(policy.delay_ms(1), 1_000);
    assert_eq!(policy.delay_ms(2), 2_000);
    assert_eq!(policy.delay_ms(4), 8_000);
    assert_eq!(policy.delay_ms(60), 300_000);
    assert_eq!(policy.delay_ms(u32::MAX), 300_000);
}

#[test]
fn an_argument_list_is_a_command() {
    let short: RunSpec = serde_json::from_str(r#"{"command":["echo","hi"]}"#).unwrap();
    let long: RunSpec = serde_json::from_str(r#"{"command":{"argv":["echo","hi"]}}"#).unwrap();
    assert_eq!(short, long);
    assert!(serde_json::from_str::<RunSpec>(r#"{"command":"echo hi"}"#).is_err());
}
