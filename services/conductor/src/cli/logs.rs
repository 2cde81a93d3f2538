//! `conductor task logs`: what a task's attempts printed, and where something of it is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::output::OutputChunk;
use futures::StreamExt;

use super::{control, read};
use crate::exit::{Exit, Outcome};
use crate::out;

/// What was printed last may still be on its way when the end is known.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Id, beginning of one, or name
    task: String,
    /// Go on while it runs
    #[arg(long, short)]
    follow: bool,
    /// Only this attempt
    #[arg(long)]
    attempt: Option<u32>,
    /// Only these; all but `thinking` where none is named
    #[arg(long, value_delimiter = ',', value_name = "CHANNEL")]
    channels: Vec<Channel>,
}

/// A channel of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Channel {
    /// What the model says, or a program prints
    Text,
    /// Tools that the model uses
    Tools,
    /// What the model thinks
    Thinking,
    /// Standard error
    Stderr,
}

impl Channel {
    /// Its name in the output stream.
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "stdout",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Stderr => "stderr",
        }
    }
}

impl LogsArgs {
    fn shows(&self, chunk: &OutputChunk) -> bool {
        let is_wanted = if self.channels.is_empty() {
            chunk.channel != Channel::Thinking.as_str()
        } else {
            let mut wanted = self.channels.iter();
            wanted.any(|c| c.as_str() == chunk.channel)
        };
        is_wanted && self.attempt.is_none_or(|a| a == chunk.attempt)
    }
}

pub(crate) async fn run(connection: &Arc<Connection>, args: LogsArgs) -> Outcome {
    let mut reader = read::now(connection).await?;
    let id = read::find(&reader.state, &args.task)?;
    let mut chunks = connection.read_output(id, args.follow).await?;
    let ended = control::wait_for_end(&mut reader, id, None, |_| {});
    let ended = async {
        let code = ended.await;
        tokio::time::sleep(LAST_WORDS).await;
        code
    };
    let print = async {
        let mut gaps = Gaps::default();
        while let Some(chunk) = chunks.next().await {
            let lost = gaps.before(&chunk);
            if lost > 0 && args.attempt.is_none_or(|a| a == chunk.attempt) {
                out::line(&format!("[{lost} bytes of output are lost here]"));
            }
            if args.shows(&chunk) {
                out::bytes(&chunk.bytes);
            }
        }
    };
    if args.follow {
        tokio::select! {
            () = print => {}
            _ = ended => {}
        }
    } else {
        print.await;
    }
    Ok(Exit::Ok)
}

/// Where something is missing: pieces say where in the output of their attempt they stand.
#[derive(Debug, Default)]
struct Gaps {
    /// Where the output of each attempt goes on.
    next: BTreeMap<u32, u64>,
}

impl Gaps {
    /// How many bytes are missing before a piece.
    fn before(&mut self, chunk: &OutputChunk) -> u64 {
        // Agents from before this did not say.
        let Some(offset) = chunk.offset else { return 0 };
        let end = offset.saturating_add(chunk.bytes.len() as u64);
        let next = self.next.entry(chunk.attempt).or_default();
        let lost = offset.saturating_sub(*next);
        *next = (*next).max(end);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(attempt: u32, offset: Option<u64>, channel: &str) -> OutputChunk {
        OutputChunk {
            task: conductor_protocol::TaskId::from_parts(0, [0; 10]),
            attempt,
            channel: channel.to_owned(),
            offset,
            time_ms: 0,
            bytes: bytes::Bytes::from_static(b"0123456789"),
        }
    }

    #[test]
    fn what_is_missing_is_counted_by_attempt() {
        let mut gaps = Gaps::default();
        let mut lost = |attempt, offset| gaps.before(&chunk(attempt, offset, "stdout"));
        assert_eq!(lost(1, Some(0)), 0);
        assert_eq!(lost(1, Some(10)), 0);
        assert_eq!(lost(1, Some(25)), 5);
        assert_eq!(lost(2, Some(7)), 7, "the beginning of another attempt");
        assert_eq!(lost(1, Some(35)), 0);
        assert_eq!(lost(1, Some(20)), 0, "twice is not a gap");
        assert_eq!(lost(1, None), 0);
    }

    #[test]
    fn thinking_is_shown_to_those_who_ask_for_it() {
        let mut args = LogsArgs {
            task: String::new(),
            follow: false,
            attempt: Some(1),
            channels: Vec::new(),
        };
        let shown = |args: &LogsArgs| {
            ["stdout", "tools", "thinking", "stderr"]
                .map(|channel| args.shows(&chunk(1, None, channel)))
        };
        assert_eq!(shown(&args), [true, true, false, true]);
        args.channels = vec![Channel::Thinking, Channel::Text];
        assert_eq!(shown(&args), [true, false, true, false]);
        args.attempt = Some(2);
        assert_eq!(shown(&args), [false; 4]);
    }
}
