//! The slow path: what exactly is wrong with a submission.

use serde_json::Value;

use super::Submission;
use crate::event::FieldError;
use crate::frame::Encoding;
use crate::limits::ERRORS_MAX;

/// What is expected at each field, for the error message.
const EXPECTED: &[(&str, &str)] = &[
    ("id", "a UUIDv7 as text"),
    ("key", "a text of 1 to 256 bytes"),
    ("name", "a text of 1 to 256 bytes"),
    (
        "run.command",
        "a list of arguments or an object {argv, env, stdin, cwd}",
    ),
    ("run.claude", "an object with at least a prompt"),
    ("run.codex", "an object with at least a prompt"),
    ("run.acp", "an object with at least argv and a prompt"),
    (
        "run",
        "one of {\"command\": …}, {\"claude\": …}, {\"codex\": …}, {\"acp\": …}, {\"noop\": {}}",
    ),
    ("sandbox.memory", "bytes or a text such as \"2g\""),
    ("sandbox.file_size", "bytes or a text such as \"2g\""),
    ("sandbox.disk", "bytes or a text such as \"2g\""),
    (
        "sandbox.cpu_millis",
        "thousandths of a processor, 1 or more",
    ),
    ("sandbox.processes", "a whole number of 1 or more"),
    (
        "sandbox.network",
        "one of \"none\", \"full\", {\"hosts\": [\"name\", \"name:port\"]}",
    ),
    (
        "sandbox",
        "a level (minimal, moderate, strict), a kind (none, landlock, bubblewrap, podman, docker, kubernetes), or an object {kind, level, network, memory, cpu_millis, processes, file_size, disk, image}",
    ),
    ("workspace.name", "1 to 64 characters of A-Z a-z 0-9 _ -"),
    (
        "workspace.git.url",
        "an absolute path, or a URL by https, ssh, git@ or file",
    ),
    ("workspace.git.ref", "a branch, tag or commit"),
    ("workspace.git.push", "a branch"),
    ("workspace", "an object {name, git: {url, ref, push}}"),
    ("setup", "a list of commands, each like run.command"),
    ("checks", "a list of commands, each like run.command"),
    ("artifacts", "a list of paths inside the workspace"),
    ("budget.usd", "US dollars above 0"),
    ("budget.tokens", "a whole number of 1 or more"),
    ("budget.turns", "a whole number of 1 or more"),
    ("budget.time", "milliseconds or a text such as \"30m\""),
    ("budget", "an object {usd, tokens, turns, time, on_reached}"),
    ("models", "a list of names of models"),
    ("secrets", "a list of names of the agent's secrets"),
    (
        "approvals.expires",
        "milliseconds or a text such as \"1h\", a second or more",
    ),
    (
        "approvals",
        "an object {tools, acceptance, expires, default}",
    ),
    ("result_schema", "a text that is a JSON schema"),
    ("subtasks.max", "a whole number from 1 to 256"),
    ("subtasks.depth", "a whole number from 1 to 4"),
    ("subtasks.queues", "a list of queues"),
    (
        "subtasks.runtimes",
        "a list of runtimes such as [\"claude\"]",
    ),
    (
        "subtasks",
        "an object {max, depth, queues, runtimes, budget}, without approvals.tools beside it",
    ),
    ("queue", "the queue of the subject, or absent"),
    ("namespace", "1 to 64 characters of A-Z a-z 0-9 _ -"),
    ("priority", "a whole number from 0 (lowest) to 9"),
    ("labels", "an object of texts"),
    (
        "needs",
        "a list of task ids or names within this submission",
    ),
    ("on_need_failed", "one of fail, skip, run"),
    ("retry.max_attempts", "a whole number from 1 to 1000"),
    ("retry.backoff", "milliseconds or a text such as \"10s\""),
    ("retry.max_backoff", "milliseconds or a text such as \"5m\""),
    ("retry.factor", "a number from 1 to 100"),
    ("retry.jitter", "a number from 0 to 1"),
    (
        "retry.on",
        "a list of outcome classes such as [\"failed\",\"timeout\"]",
    ),
    (
        "retry",
        "an object {max_attempts, backoff, factor, max_backoff, jitter, on}",
    ),
    ("timeouts.", "milliseconds or a text such as \"10m\""),
    ("timeouts", "an object {queue, run, heartbeat, total}"),
    ("start_at", "Unix milliseconds or an RFC 3339 time"),
    ("delay", "milliseconds or a text such as \"10s\""),
    (
        "concurrency",
        "an object {key, limit} with a limit of 1 or more",
    ),
    ("slots", "a whole number from 1 to 65536"),
    ("metadata", "an object of texts"),
    (
        "traceparent",
        "W3C trace context: 00-<trace>-<span>-<flags>",
    ),
];

/// What is expected at `path`.
pub(super) fn expected(path: &str) -> &'static str {
    EXPECTED
        .iter()
        .find(|(prefix, _)| is_at_or_below(path, prefix))
        .map_or("one of the fields of a task", |(_, text)| text)
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| {
        prefix.ends_with('.') || rest.is_empty() || rest.starts_with(['.', '['])
    })
}

/// The element as a JSON value, whatever it was encoded in.
pub(super) fn to_value(encoding: Encoding, element: &[u8]) -> Result<Value, Vec<FieldError>> {
    let broken = |problem: String| vec![FieldError::new("", problem, "an object")];
    match encoding {
        Encoding::Json => serde_json::from_slice(element).map_err(|e| broken(e.to_string())),
        Encoding::Msgpack => {
            let mut rest = element;
            rmpv::decode::read_value(&mut rest)
                .map(|v| json_of(&v))
                .map_err(|e| broken(e.to_string()))
        }
    }
}

/// MessagePack has more kinds than JSON; what JSON lacks becomes text.
fn json_of(value: &rmpv::Value) -> Value {
    use rmpv::Value as Pack;
    match value {
        Pack::Nil | Pack::Ext(..) => Value::Null,
        Pack::Boolean(b) => (*b).into(),
        Pack::Integer(n) => n
            .as_u64()
            .map(Value::from)
            .or_else(|| n.as_i64().map(Value::from))
            .unwrap_or(Value::Null),
        Pack::F32(n) => f64::from(*n).into(),
        Pack::F64(n) => (*n).into(),
        Pack::String(s) => s.as_str().unwrap_or("\u{fffd}").into(),
        Pack::Binary(b) => match uuid::Uuid::from_slice(b) {
            Ok(id) => id.to_string().into(),
            Err(_) => String::from_utf8_lossy(b).into_owned().into(),
        },
        Pack::Array(items) => items.iter().map(json_of).collect(),
        Pack::Map(entries) => entries
            .iter()
            .map(|(k, v)| (k.as_str().unwrap_or("\u{fffd}").to_owned(), json_of(v)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// Reads a submission from a JSON value; on failure every bad field.
pub fn from_json_value(value: Value) -> Result<Submission, Vec<FieldError>> {
    let (submission, errors) = read(value);
    if errors.is_empty() {
        Ok(submission)
    } else {
        Err(errors)
    }
}

/// What can be read of a submission, and what is wrong with the rest.
///
/// Serde stops at the first error, so the bad field is noted and taken out, and the
/// rest read again, until nothing is wrong any more.
pub(super) fn read(mut value: Value) -> (Submission, Vec<FieldError>) {
    let mut errors = Vec::new();
    if !value.is_object() {
        errors.push(FieldError::new(
            "",
            "is not an object",
            "an object with at least run",
        ));
        return (Submission::default(), errors);
    }
    while errors.len() < ERRORS_MAX {
        let mut unknown = Vec::new();
        let mut on_unknown = |path: serde_ignored::Path<'_>| unknown.push(clean(&path.to_string()));
        let mut track = serde_path_to_error::Track::new();
        let de = serde_path_to_error::Deserializer::new(&value, &mut track);
        let result: Result<Submission, _> = serde_ignored::deserialize(de, &mut on_unknown);
        match result {
            Ok(submission) => {
                let unknown = unknown.iter().map(|path| with_runtime(&value, path));
                errors.extend(unknown.map(|path| unknown_field(&path)));
                return (submission, errors);
            }
            Err(e) => {
                let path = clean(&track.path().to_string());
                errors.push(FieldError::new(&path, e.to_string(), expected(&path)));
                if !take_out(&mut value, &path) {
                    break;
                }
            }
        }
    }
    (Submission::default(), errors)
}

/// Takes what is wrong out of the way of the rest. What a run cannot be without is replaced
/// instead, so that its other fields are read too; it is refused all the same.
fn take_out(value: &mut Value, path: &str) -> bool {
    let bare = path.split('[').next().unwrap_or(path);
    let stand_in = match bare {
        "run.command.argv" | "run.acp.argv" => Value::from(vec!["true"]),
        "run.claude.prompt" | "run.codex.prompt" | "run.acp.prompt" => Value::from("-"),
        "run" | "run.command" | "run.claude" | "run.codex" | "run.acp" | "run.noop" => {
            return remove(value, "run");
        }
        _ => return remove(value, path),
    };
    match lookup(value, bare) {
        Some(wrong) if *wrong != stand_in => {
            *wrong = stand_in;
            true
        }
        _ => remove(value, "run"),
    }
}

/// A path inside the run as people write it: serde_ignored leaves the runtime out.
fn with_runtime(value: &Value, path: &str) -> String {
    let runtime = value
        .get("run")
        .and_then(Value::as_object)
        .and_then(|run| run.keys().next());
    match (path.strip_prefix("run."), runtime) {
        (Some(rest), Some(runtime)) => format!("run.{runtime}.{rest}"),
        _ => path.to_owned(),
    }
}

/// Paths of the two crates, made alike: `a.b[0]` for both.
fn clean(path: &str) -> String {
    path.split('.')
        .filter(|part| !matches!(*part, "?" | ""))
        .collect::<Vec<_>>()
        .join(".")
}

fn unknown_field(path: &str) -> FieldError {
    let near = known_fields()
        .into_iter()
        .find(|known| is_near(known, path));
    let problem = near.map_or_else(
        || "is not a field of a task".to_owned(),
        |known| format!("is not a field of a task; did you mean {known}?"),
    );
    FieldError::new(path, problem, "one of the fields of a task")
}

fn known_fields() -> Vec<&'static str> {
    let mut fields: Vec<_> = EXPECTED.iter().map(|(path, _)| *path).collect();
    fields.retain(|f| !f.ends_with('.'));
    fields
}

/// Whether two names differ by at most two single-letter edits.
fn is_near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(ca != cb))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row.last().is_some_and(|distance| *distance <= 2)
}

/// Takes the value at `path` out, or the nearest thing above it that is there.
fn remove(value: &mut Value, path: &str) -> bool {
    let (parent, leaf) = match path.rsplit_once(['.', '[']) {
        Some((parent, leaf)) => (parent.trim_end_matches('.'), leaf.trim_end_matches(']')),
        None => ("", path),
    };
    if path.is_empty() {
        return false;
    }
    let removed = match lookup(value, parent) {
        Some(Value::Object(map)) => map.remove(leaf).is_some(),
        Some(Value::Array(items)) => match leaf.parse::<usize>() {
            Ok(i) if i < items.len() => {
                items.remove(i);
                true
            }
            _ => false,
        },
        _ => false,
    };
    removed || remove(value, parent)
}

fn lookup<'v>(value: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    path.split(['.', '['])
        .filter(|p| !p.is_empty())
        .try_fold(value, |value, part| match value {
            Value::Object(map) => map.get_mut(part),
            Value::Array(items) => part
                .trim_end_matches(']')
                .parse::<usize>()
                .ok()
                .and_then(|i| items.get_mut(i)),
            _ => None,
        })
}
