//! What tests of runtimes share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::ids::Lease;
use conductor_protocol::{Position, RunSpec};

use super::{Host, Job, Runtime, Signal};
use crate::dirs::Paths;
use crate::models::Models;
use crate::output::Channel;
use crate::process::Launch;
use crate::secrets::Secrets;
use crate::tools::Endpoint;

/// A recorded stream.
pub(super) fn fixture(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    std::fs::read(format!("{path}{name}")).unwrap()
}

pub(super) fn lease() -> Lease {
    Lease {
        task: "018bcfe5-6800-7000-8000-000000000000".parse().unwrap(),
        attempt: 1,
        assigned: Position::new(7, 0),
    }
}

pub(crate) fn assigned(run: RunSpec) -> AttemptAssigned {
    AttemptAssigned {
        task: lease().task,
        attempt: 1,
        incarnation: 1,
        slots: 1,
        run: Arc::new(run),
        timeouts: conductor_protocol::compact::Rare::default(),
        queue: "q".parse().unwrap(),
        namespace: conductor_protocol::ids::Namespace::default(),
        name: None,
        metadata: conductor_protocol::compact::Pairs::default(),
        traceparent: None,
        terms: None,
        before: None,
        inputs: Vec::new(),
    }
}

/// A host with a key and an endpoint for every model service.
pub(super) fn host() -> Host {
    let of = |name: &str| {
        let pairs = [("API_KEY", "the-key"), ("BASE_URL", "http://127.0.0.1:9")];
        pairs
            .map(|(n, v)| (format!("{name}_{n}"), v.to_owned()))
            .into()
    };
    Host {
        path: "/usr/bin:/bin".into(),
        claude_env: of("ANTHROPIC"),
        codex_env: of("OPENAI"),
        claude: PathBuf::from("claude"),
        codex: PathBuf::from("codex"),
        versions: BTreeMap::new(),
        silence: Duration::from_secs(1),
        otlp: None,
        models: Arc::new(Models::from_env().unwrap()),
        secrets: Secrets::default(),
    }
}

/// How a run is asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) session: Option<&'a str>,
    pub(super) is_boxed: bool,
    pub(super) has_tools: bool,
}

/// Where its program finds its tools.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::at(8190, "the-token")
}

pub(super) fn prepared(
    runtime: &mut dyn Runtime,
    assigned: &AttemptAssigned,
    asked: Asked<'_>,
) -> Result<Launch, String> {
    let root = Path::new("/data/t");
    let paths = Paths {
        workspace: root.join("workspace"),
        home: root.join("home"),
        tmp: root.join("tmp"),
        run: root.join("run"),
    };
    let endpoint = endpoint();
    runtime.prepare(&Job {
        lease: lease(),
        assigned,
        paths: &paths,
        host: &host(),
        is_boxed: asked.is_boxed,
        session: asked.session,
        tools: asked.has_tools.then_some(&endpoint),
    })
}

/// All that a stream gives, read in small pieces.
pub(super) fn read_all(runtime: &mut dyn Runtime, stream: &[u8]) -> Vec<Signal> {
    let mut signals = Vec::new();
    for chunk in stream.chunks(777) {
        signals.extend(runtime.read(Channel::Stdout, chunk));
    }
    signals.extend(runtime.end(Channel::Stdout));
    signals
}

/// What went into the output.
pub(super) fn output_of(signals: &[Signal]) -> String {
    let texts = signals.iter().filter_map(|s| match s {
        Signal::Text(_, text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    });
    texts.collect()
}
