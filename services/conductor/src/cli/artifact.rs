//! `conductor artifact …`: the files that attempts left.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_domain::Verdict;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::artifacts::ArtifactError;
use conductor_protocol::human::format_time;
use serde_json::{Value, json};

use super::read::{self, Entry};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;

/// Look at the files that attempts left
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ArtifactCommand {
    /// Show the artifacts of a task
    List {
        /// Id, beginning of one, or name
        task: String,
    },
    /// Get an artifact; its hash is checked
    Get {
        /// Id, beginning of one, or name
        task: String,
        /// Name of the artifact, as `list` shows it
        name: String,
        /// Where it is written, `-` for standard output [default: its name, in this directory]
        file: Option<PathBuf>,
        /// That of this attempt, not of the last one that left it
        #[arg(long)]
        attempt: Option<u64>,
    },
}

pub(crate) async fn run(command: ArtifactCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    match command {
        ArtifactCommand::List { task } => {
            let rows = stored(&timeline(&connection, &task).await?);
            let columns = [
                ("ATTEMPT", "attempt"),
                ("NAME", "name"),
                ("BYTES", "size"),
                ("TYPE", "media_type"),
                ("SHA256", "sha256"),
            ];
            out::rows(settings.output, &columns, &rows);
            Ok(Exit::Ok)
        }
        ArtifactCommand::Get {
            task,
            name,
            file,
            attempt,
        } => {
            let all = stored(&timeline(&connection, &task).await?);
            let sha256 = pick(&all, &name, attempt).ok_or_else(|| missing(&task, &name, &all))?;
            let bytes = connection
                .read_artifact(sha256)
                .await
                .map_err(|e| failure(&e))?;
            write(settings.output, &name, file.as_deref(), &bytes)
        }
    }
}

async fn timeline(connection: &Arc<Connection>, task: &str) -> Outcome<Vec<Entry>> {
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, task)?;
    let submission = reader.state.tasks.get(&id).map(|t| t.submission.seq);
    let timeline = read::timeline(connection, id, submission).await?;
    if timeline.is_empty() {
        let message = format!("there is no task {id}");
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(timeline)
}

/// The events of a kind that counted.
fn counted<'e>(timeline: &'e [Entry], kind: &'static str) -> impl Iterator<Item = &'e Entry> {
    timeline.iter().filter(move |entry| {
        let is_kind = entry.event.get("type").and_then(Value::as_str) == Some(kind);
        is_kind && entry.verdict == Verdict::Applied
    })
}

/// The artifacts that a task's attempts left.
pub(crate) fn stored(timeline: &[Entry]) -> Vec<Value> {
    let row = |entry: &Entry| {
        let event = &entry.event;
        json!({
            "name": event["name"], "size": event["size"], "sha256": event["sha256"],
            "media_type": event["media_type"], "attempt": event.pointer("/lease/attempt"),
            "at": entry.at.to_string(), "time": format_time(entry.time_ms),
        })
    };
    counted(timeline, "attempt.artifact").map(row).collect()
}

/// An artifact in a word, for people.
pub(crate) fn short(artifact: &Value) -> String {
    let name = artifact["name"].as_str().unwrap_or("?");
    format!("{name} ({} bytes)", artifact["size"])
}

/// What the last attempt that said so changed.
pub(crate) fn changed(timeline: &[Entry]) -> Option<Value> {
    let mut event = counted(timeline, "attempt.changed").last()?.event.clone();
    let fields = event.as_object_mut()?;
    let lease = fields.remove("lease");
    fields
        .retain(|name, value| !["type", "v", "agent"].contains(&name.as_str()) && !value.is_null());
    let attempt = lease.and_then(|l| l.get("attempt").cloned());
    fields.insert("attempt".to_owned(), attempt.unwrap_or_default());
    Some(event)
}

/// The hash of the last artifact of this name.
fn pick<'v>(all: &'v [Value], name: &str, attempt: Option<u64>) -> Option<&'v str> {
    let is_it = |v: &&Value| {
        v["name"].as_str() == Some(name) && attempt.is_none_or(|n| v["attempt"].as_u64() == Some(n))
    };
    all.iter().rfind(is_it)?["sha256"].as_str()
}

fn missing(task: &str, name: &str, all: &[Value]) -> Failure {
    let names: Vec<&str> = all.iter().filter_map(|v| v["name"].as_str()).collect();
    let there = if names.is_empty() {
        "it left none".to_owned()
    } else {
        format!("it left {}", out::plain(&names.join(", ")))
    };
    Failure::new(
        Exit::NotFound,
        format!("task {task} left no artifact {name:?}"),
    )
    .hint(there)
}

fn failure(e: &ArtifactError) -> Failure {
    let exit = match e {
        ArtifactError::Gone(_) => Exit::NotFound,
        ArtifactError::Log(_) => Exit::Unreachable,
        ArtifactError::Damaged { .. } | ArtifactError::Unreadable(_) => Exit::Failure,
    };
    Failure::new(exit, e.to_string())
}

fn write(format: Format, name: &str, file: Option<&Path>, bytes: &[u8]) -> Outcome {
    if file == Some(Path::new("-")) {
        out::bytes(bytes);
        return Ok(Exit::Ok);
    }
    // A name comes from a program: only its last part names a file here, and none is overwritten
    // that nobody spoke of.
    let own = Path::new(name).file_name().map(PathBuf::from);
    let path = file.map(Path::to_owned).or(own).unwrap_or_default();
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if file.is_some() {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(&path)
        .and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("cannot write {}: {e}", path.display()),
        )
        .hint("name the file it shall be written to, or `-` for standard output")
    })?;
    out::one(format, &json!({"file": path, "bytes": bytes.len()}));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::Position;

    fn entry(event: Value, verdict: Verdict) -> Entry {
        Entry {
            at: Position::new(1, 0),
            time_ms: 0,
            event,
            verdict,
        }
    }

    fn artifact(name: &str, sha256: &str, attempt: u32, verdict: Verdict) -> Entry {
        let lease = json!({"attempt": attempt});
        let event = json!({"type": "attempt.artifact", "lease": lease, "name": name,
            "sha256": sha256, "size": 1});
        entry(event, verdict)
    }

    #[test]
    fn the_last_that_counted_is_picked() {
        let void = Verdict::Void(conductor_domain::VoidReason::LeaseNotCurrent);
        let all = stored(&[
            artifact("a", "one", 1, Verdict::Applied),
            artifact("a", "two", 2, Verdict::Applied),
            artifact("a", "late", 1, void),
        ]);
        assert_eq!(all.len(), 2);
        assert_eq!(pick(&all, "a", None), Some("two"));
        assert_eq!(pick(&all, "a", Some(1)), Some("one"));
        assert_eq!(pick(&all, "a", Some(3)), None);
        assert_eq!(pick(&all, "b", None), None);
    }

    #[test]
    fn what_changed_is_shown_without_its_lease() {
        let event = json!({"type": "attempt.changed", "v": 1, "agent": "a", "lease": {"attempt": 2},
            "files": 3, "insertions": 2, "deletions": 1, "pushed": null});
        let shown = changed(&[entry(event, Verdict::Applied)]).unwrap();
        let expected = json!({"files": 3, "insertions": 2, "deletions": 1, "attempt": 2});
        assert_eq!(shown, expected);
    }
}
