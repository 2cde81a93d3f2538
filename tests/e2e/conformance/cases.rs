//! What programs do, and what must become of it.

use conductor_protocol::OutcomeClass::{self, Auth, Crashed, Denied, Failed, Stalled, Timeout};

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With success, and this in its result.
    Success(&'static str),
    /// With a failure of this class.
    Failure(OutcomeClass),
    /// Cancelled, once it runs.
    Cancelled,
}

/// One way in which programs behave.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What `fake-agent.py` calls it, and its end.
    pub(super) of_model: (&'static str, End),
    /// A shell program that does the same, and its end; none where a plain program has nothing of
    /// the kind.
    pub(super) of_command: Option<(&'static str, End)>,
    /// How many processes it names that must be gone.
    pub(super) leaves: usize,
}

const fn case(
    name: &'static str,
    of_model: (&'static str, End),
    of_command: Option<(&'static str, End)>,
) -> Case {
    Case {
        name,
        of_model,
        of_command,
        leaves: 0,
    }
}

const fn leaving(leaves: usize, mut case: Case) -> Case {
    case.leaves = leaves;
    case
}

/// Two that would outlive their parent.
macro_rules! leave {
    ($then:literal) => {
        concat!(
            "sleep 300 & echo pid $!; setsid sleep 300 & echo pid $!; ",
            $then
        )
    };
}

/// Gives a result by a tool, and prints another.
const BY_ITS_TOOLS: &str = r#"exec python3 - <<'END'
import json, os, urllib.request
call = {"name": "complete", "arguments": {"summary": "by its tools"}}
ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
headers = {
    "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
    "Authorization": "Bearer " + os.environ["CONDUCTOR_MCP_TOKEN"],
}
request = urllib.request.Request(os.environ["CONDUCTOR_MCP_URL"], json.dumps(ask).encode(), headers)
assert b'"taken":true' in urllib.request.urlopen(request).read()
print("by what it prints")
END"#;

use End::{Cancelled, Failure, Success};

pub(super) const CASES: [Case; 17] = [
    case(
        "ok",
        ("ok", Success("hello")),
        Some(("echo hello", Success("hello"))),
    ),
    case(
        "tool turn",
        ("tool", Success("from the tool")),
        Some((
            "echo from the tool > made.txt && cat made.txt",
            Success("from the tool"),
        )),
    ),
    case("denied tool", ("denied", Failure(Denied)), None),
    case(
        "transient then ok",
        ("transient", Success("recovered")),
        Some((
            "[ $CONDUCTOR_ATTEMPT -ge 2 ] && echo recovered",
            Success("recovered"),
        )),
    ),
    case(
        "permanent error",
        ("permanent", Failure(Auth)),
        Some(("exit 3", Failure(Failed))),
    ),
    // A plain program may be silent for as long as it runs: its time is limited instead.
    case(
        "stalled stream",
        ("stall", Failure(Stalled)),
        Some(("echo partial; sleep 300", Failure(Timeout))),
    ),
    case("hang after result", ("hang", Success("done")), None),
    case(
        "16 MiB line",
        ("long", Success("after the line")),
        Some((
            "head -c 17000000 /dev/zero | tr '\\0' x; echo; echo after the line",
            Success("after the line"),
        )),
    ),
    case(
        "invalid UTF-8",
        ("utf8", Success("after the bytes")),
        Some((
            "printf '\\377\\376\\n'; echo after the bytes",
            Success("after the bytes"),
        )),
    ),
    leaving(
        2,
        case(
            "crash mid-tool",
            ("crash", Failure(Crashed)),
            Some((leave!("kill -9 $$"), Failure(Crashed))),
        ),
    ),
    leaving(
        2,
        case(
            "interrupt",
            ("interrupt", Cancelled),
            Some((leave!("wait"), Cancelled)),
        ),
    ),
    case(
        "resume after SIGKILL",
        ("resume", Success("resumed")),
        Some((
            "[ $CONDUCTOR_ATTEMPT -ge 2 ] || kill -9 $$; echo resumed",
            Success("resumed"),
        )),
    ),
    leaving(
        2,
        case(
            "leftover children",
            ("children", Success("left some")),
            Some((leave!("echo left some"), Success("left some"))),
        ),
    ),
    case("two results", ("two", Success("second")), None),
    case("output after the result", ("after", Success("done")), None),
    case("unknown event kinds", ("unknown", Success("known")), None),
    // Each finds the server as its runtime is told of it.
    case(
        "result by a tool",
        ("complete", Success("by its tools")),
        Some((BY_ITS_TOOLS, Success("by its tools"))),
    ),
];
