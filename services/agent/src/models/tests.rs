use super::*;
use crate::tools::testing;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use conductor_modelproxy::KeySource;
use conductor_protocol::TaskId;
use conductor_protocol::compact::{Pairs, Rare};
use conductor_protocol::event::Usage;
use conductor_protocol::ids::Namespace;
use conductor_protocol::terms::{Before, SandboxSpec, Terms as TaskTerms};

/// A provider that answers once: what it was asked comes out of the handle.
fn provider(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = read_request(&stream);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        write!(
            stream,
            "{head}\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )
        .unwrap();
        asked
    });
    (url, asked)
}

fn read_request(stream: &TcpStream) -> String {
    let (mut reader, mut all, mut length) = (BufReader::new(stream), String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        all.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    all + &String::from_utf8(body).unwrap()
}

fn models(provider: Provider, url: &str) -> Models {
    let key = Secret::new("sk-real").unwrap();
    let keys = Keys::new(provider, KeySource::Variable("OPENAI_API_KEY", key));
    let access = Access {
        url: url.parse().unwrap(),
        keys,
    };
    Models {
        upstream: Some(Upstream::from_env().unwrap()),
        accesses: BTreeMap::from([(provider, access)]),
        prices: Arc::new(Prices::new(None).unwrap()),
    }
}

fn assigned(run: RunSpec, terms: Option<TaskTerms>) -> AttemptAssigned {
    AttemptAssigned {
        task: TaskId::from_parts(1, [1; 10]),
        attempt: 2,
        incarnation: 1,
        slots: 1,
        run: Arc::new(run),
        timeouts: Rare::default(),
        queue: "default".parse().unwrap(),
        namespace: Namespace::default(),
        name: None,
        metadata: Pairs::default(),
        traceparent: None,
        terms: terms.map(Arc::new),
        before: Some(Box::new(Before {
            usage: Some(Usage {
                turns: 2,
                output_tokens: 10,
                cost_usd: 1.0,
                ..Usage::default()
            }),
            ..Before::default()
        })),
        inputs: Vec::new(),
    }
}

fn paths(dir: &std::path::Path) -> Paths {
    Paths {
        workspace: dir.join("workspace"),
        home: dir.join("home"),
        tmp: dir.join("tmp"),
        run: dir.to_owned(),
    }
}

fn codex() -> RunSpec {
    RunSpec::Codex(Box::default())
}

/// Says something to a host of this machine; its answer.
async fn say(host: &str, ask: String) -> String {
    let host = host.to_owned();
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(ask.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    said.await.unwrap()
}

const ANSWER: &str = r#"{"model":"gpt-5","usage":{"input_tokens":100,"output_tokens":7}}"#;

#[tokio::test]
async fn a_program_that_knows_no_sockets_has_a_port_and_a_placeholder() {
    let (url, asked) = provider(ANSWER);
    let models = models(Provider::OpenAi, &url);
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&models, &assigned(codex(), None), &paths(dir.path()), false)
        .await
        .unwrap();
    let keys = plan
        .keys
        .iter()
        .map(|(p, key)| (*p, key.variable))
        .collect();
    let env = plan.ways.model_env(&keys, &plan.terms.placeholder);
    let variables: Vec<String> = plan.env().into_keys().collect();
    let tools = [TOKEN_VARIABLE, URL_VARIABLE];
    assert_eq!(variables, tools, "the agent listens itself");
    let tools = testing::opened(dir.path(), None).tools;
    let task = TaskId::from_parts(0, [0; 10]);
    let tab = || Tab::at(task, dir.path().join("usage.json"));
    let mut line = plan.open(&models, dir.path(), &tools, tab()).unwrap();
    let base = env["OPENAI_BASE_URL"]
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let (host, path) = base.split_once('/').unwrap();
    let ask = format!(
        "POST /{path}/responses HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
         content-length: 17\r\nconnection: close\r\n\r\n{{\"model\":\"gpt-5\"}}",
        env["OPENAI_API_KEY"]
    );
    let said = say(host, ask).await;
    assert!(
        said.starts_with("HTTP/1.1 200") && said.ends_with(ANSWER),
        "{said}"
    );
    let asked = asked.join().unwrap().to_lowercase();
    assert!(
        asked.starts_with("post /v1/responses") && asked.contains("bearer sk-real"),
        "{asked}"
    );
    let Notice::Usage(usage) = line.next().await else {
        panic!("it is metered")
    };
    assert_eq!(
        (usage.turns, usage.input_tokens, usage.output_tokens),
        (3, 100, 17)
    );
    assert!((usage.cost_usd - 1.000_195).abs() < 1e-9, "{usage:?}");
    assert_eq!(line.usage(None), Some(usage.clone()));
    // Another attempt counts on from there, though the log may know less.
    let next = Plan::new(&models, &assigned(codex(), None), &paths(dir.path()), false)
        .await
        .unwrap();
    let run = tempfile::tempdir().unwrap();
    let line = next.open(&models, run.path(), &tools, tab()).unwrap();
    assert_eq!(line.before.turns, usage.turns);
    assert!((line.before.cost_usd - usage.cost_usd).abs() < 1e-9);
}

#[tokio::test]
async fn in_a_network_of_its_own_the_reaper_opens_the_ports() {
    let models = models(Provider::OpenAi, "http://127.0.0.1:9/v1");
    let dir = tempfile::tempdir().unwrap();
    let sandbox = SandboxSpec {
        network: Network::Hosts(vec!["example.org".into()]),
        ..SandboxSpec::default()
    };
    let terms = TaskTerms {
        sandbox: Some(sandbox),
        ..TaskTerms::default()
    };
    let inside = Paths {
        run: "/run/conductor".into(),
        ..paths(dir.path())
    };
    let plan = Plan::new(&models, &assigned(codex(), Some(terms)), &inside, true)
        .await
        .unwrap();
    let forward = &plan.env()[crate::forward::VARIABLE];
    assert_eq!(
        forward,
        "8190=/run/conductor/model.sock 8191=/run/conductor/egress.sock"
    );
    let tools = testing::opened(dir.path(), None).tools;
    let _line = plan
        .open(&models, dir.path(), &tools, Tab::default())
        .unwrap();
    for socket in [MODEL_SOCKET, EGRESS_SOCKET] {
        assert!(dir.path().join(socket).exists(), "{socket}");
    }
}

#[tokio::test]
async fn programs_of_other_kinds_get_their_tools_and_no_models() {
    let models = models(Provider::OpenAi, "http://127.0.0.1:9/v1");
    let dir = tempfile::tempdir().unwrap();
    let command = RunSpec::Command(Box::default());
    let claude = RunSpec::Claude(Box::default());
    for run in [command, claude] {
        let plan = Plan::new(&models, &assigned(run, None), &paths(dir.path()), false)
            .await
            .unwrap();
        assert!(plan.secrets().next().is_none());
        let (variables, endpoint) = (plan.env(), plan.tools());
        let tools = [TOKEN_VARIABLE, URL_VARIABLE];
        assert!(variables.keys().eq(tools.iter()), "{variables:?}");
        assert_eq!(variables[URL_VARIABLE], endpoint.url);
        let tools = testing::opened(dir.path(), None).tools;
        let line = plan
            .open(&models, dir.path(), &tools, Tab::default())
            .unwrap();
        assert!(!line.is_metered());
        let host = endpoint.url.strip_prefix("http://").unwrap();
        let host = host.strip_suffix("/mcp").unwrap().to_owned();
        for (path, token, status) in [
            ("/mcp", "another", 401),
            ("/openai/v1/responses", &*endpoint.token, 403),
            // It is asked for JSON, which this is not.
            ("/mcp", &*endpoint.token, 415),
        ] {
            let ask = format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
                 accept: application/json, text/event-stream\r\ncontent-length: 17\r\n\
                 connection: close\r\n\r\n{{\"model\":\"gpt-5\"}}"
            );
            let said = say(&host, ask).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(said.starts_with(&expected), "{path} {status}: {said}");
        }
        let said = Some(Usage {
            turns: 9,
            ..Usage::default()
        });
        assert_eq!(
            line.usage(said.clone()),
            said,
            "its own figures are all there is"
        );
    }
    let sockets = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(sockets, 0, "its port is enough");
}

#[tokio::test]
async fn a_key_that_cannot_be_had_is_said_before_anything_starts() {
    let mut models = models(Provider::OpenAi, "http://127.0.0.1:9/v1");
    let file = KeySource::File(PathBuf::from("/nonexistent/key"));
    let access = models.accesses.get_mut(&Provider::OpenAi).unwrap();
    access.keys = Keys::new(Provider::OpenAi, file);
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&models, &assigned(codex(), None), &paths(dir.path()), false).await;
    assert!(plan.unwrap_err().contains("/nonexistent/key"));
}
