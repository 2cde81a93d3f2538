//! What a task has used, noted after every answer beside what its attempt works on: the log is told
//! of it seldom, and an agent that is killed says nothing more. Whoever goes on there counts on from it.

use std::fs;
use std::path::PathBuf;

use conductor_protocol::TaskId;
use conductor_protocol::event::Usage;

use crate::dirs::write_new;

/// The note of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Tab {
    /// Whose, and where; none where nobody goes on.
    of: Option<(TaskId, PathBuf)>,
}

impl Tab {
    /// The note about a task in this file.
    pub(crate) fn at(task: TaskId, path: PathBuf) -> Self {
        Self {
            of: Some((task, path)),
        }
    }

    /// What its task has used by now, given what the log knew of it: the larger of each figure, as the
    /// log itself would have it.
    pub(super) fn total(&self, known: &Usage) -> Usage {
        let text = self.of.as_ref().and_then(|(_, path)| fs::read(path).ok());
        let noted = text.and_then(|text| serde_json::from_slice::<Usage>(&text).ok());
        let Some(noted) = noted else {
            return known.clone();
        };
        Usage {
            turns: known.turns.max(noted.turns),
            input_tokens: known.input_tokens.max(noted.input_tokens),
            cached_tokens: known.cached_tokens.max(noted.cached_tokens),
            cache_write_tokens: known.cache_write_tokens.max(noted.cache_write_tokens),
            output_tokens: known.output_tokens.max(noted.output_tokens),
            cost_usd: known.cost_usd.max(noted.cost_usd),
            ..known.clone()
        }
    }

    /// Notes what it has used.
    pub(super) fn note(&self, usage: &Usage) {
        let Some((task, path)) = &self.of else {
            return;
        };
        let text = serde_json::to_vec(usage).map_err(std::io::Error::from);
        // Whole or not at all, should the agent be killed meanwhile.
        let part = path.with_extension("part");
        let noted = text.and_then(|text| write_new(&part, &text));
        if let Err(e) = noted.and_then(|()| fs::rename(&part, path)) {
            tracing::warn!(%task, path = %path.display(), error = %e, "what an attempt uses is not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(turns: u32, cost_usd: f64) -> Usage {
        Usage {
            model: Some("m".into()),
            turns,
            output_tokens: u64::from(turns) * 42,
            cost_usd,
            ..Usage::default()
        }
    }

    #[test]
    fn what_was_noted_counts_where_the_log_knew_less() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskId::from_parts(0, [0; 10]);
        let tab = || Tab::at(task, dir.path().join("usage.json"));
        assert_eq!(tab().total(&used(1, 0.1)), used(1, 0.1), "nothing is noted");
        tab().note(&used(2, 0.2));
        tab().note(&used(4, 0.4));
        assert_eq!(tab().total(&used(1, 0.1)), used(4, 0.4));
        assert_eq!(tab().total(&used(5, 0.5)), used(5, 0.5), "it knew more");
        fs::write(dir.path().join("usage.json"), "{half").unwrap();
        assert_eq!(tab().total(&used(1, 0.1)), used(1, 0.1));
        Tab::default().note(&used(9, 0.9));
        assert_eq!(Tab::default().total(&used(1, 0.1)), used(1, 0.1));
    }
}
