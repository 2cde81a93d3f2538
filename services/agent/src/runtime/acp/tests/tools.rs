use super::*;

/// What a session is opened with, by an agent of these capabilities that is given tools.
fn servers_of(capabilities: &Value) -> Value {
    let task = assigned(RunSpec::Acp(Box::new(spec())));
    let mut runtime = AcpRuntime::new(spec(), Duration::from_secs(1));
    let asked = Asked {
        has_tools: true,
        ..Asked::default()
    };
    prepared(&mut runtime, &task, asked).unwrap();
    let initialized = json!({"protocolVersion": 1, "agentCapabilities": capabilities});
    let (said, _) = hear(&mut runtime, &[result(1, &initialized)]);
    assert_eq!(said[0]["method"], "session/new");
    said[0]["params"]["mcpServers"].clone()
}

#[test]
fn an_agent_that_can_is_given_the_server_of_its_tools() {
    let server = json!([{
        "type": "http", "name": "conductor", "url": "http://127.0.0.1:8190/mcp",
        "headers": [{"name": "Authorization", "value": "Bearer the-token"}],
    }]);
    assert_eq!(
        servers_of(&json!({"mcpCapabilities": {"http": true}})),
        server
    );
    for cannot in [
        json!({}),
        json!({"mcpCapabilities": {"http": false, "sse": true}}),
    ] {
        assert_eq!(servers_of(&cannot), json!([]));
    }
}
