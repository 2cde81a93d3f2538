//! What is submitted: tasks of every kind, of the size that was asked for.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use conductor_protocol::event::peek;
use conductor_protocol::human::DurationMs;
use conductor_protocol::limits::MAP_VALUE_BYTES_MAX;
use conductor_protocol::spec::{CommandSpec, NoopSpec, RetryPolicy};
use conductor_protocol::submission::Submission;
use conductor_protocol::{OutcomeClass, RunSpec, TaskId};

use crate::plan::Kind;

/// Makes submissions that carry a number in their ids: by it the end of a task is known
/// for that of its submission without a table of all tasks.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    kind: Kind,
    pads: BTreeMap<String, String>,
    run: [u8; 2],
}

/// This machine's clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    now_unix_ns() / 1_000_000
}

/// This machine's clock, in nanoseconds since 1970.
pub(crate) fn now_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as u64)
}

impl Workload {
    /// Tasks of a kind whose encoded submissions have about `bytes` bytes. `run` tells this
    /// run's tasks from those of another.
    pub(crate) fn new(kind: Kind, bytes: usize, run: u16) -> Self {
        let mut workload = Self {
            kind,
            pads: BTreeMap::new(),
            run: run.to_be_bytes(),
        };
        let size = |w: &Self| w.group(0).first().map_or(0, encoded_len);
        loop {
            let name = format!("pad{}", workload.pads.len());
            workload.pads.insert(name.clone(), String::new());
            let Some(room) = bytes.checked_sub(size(&workload)) else {
                workload.pads.remove(&name);
                break;
            };
            // Longer texts have longer headers.
            let header = usize::from(room > 31) + usize::from(room > 255);
            let pad = "x".repeat((room - header.min(room)).min(MAP_VALUE_BYTES_MAX));
            workload.pads.insert(name, pad);
        }
        workload
    }

    /// How many tasks belong together and are submitted together.
    pub(crate) fn group_size(&self) -> u64 {
        match self.kind {
            Kind::Chain => 10,
            Kind::Fan => 102,
            _ => 1,
        }
    }

    /// The tasks of a group, with the numbers from `group * group_size` on.
    pub(crate) fn group(&self, group: u64) -> Vec<Submission> {
        let (size, ms) = (self.group_size(), now_ms());
        let ids: Vec<TaskId> = (group * size..(group + 1) * size)
            .map(|n| self.id(ms, n))
            .collect();
        let numbered = ids.iter().enumerate();
        numbered
            .map(|(i, id)| self.task(group, *id, self.needs(&ids, i)))
            .collect()
    }

    fn task(&self, group: u64, id: TaskId, needs: Vec<String>) -> Submission {
        let mut task = Submission {
            id: Some(id),
            run: Some(RunSpec::Noop(NoopSpec {})),
            metadata: self.pads.clone().into_iter().collect(),
            needs,
            ..Submission::default()
        };
        let program = |name: &str| {
            let argv = vec![name.to_owned()];
            Some(RunSpec::Command(Box::new(CommandSpec {
                argv,
                ..CommandSpec::default()
            })))
        };
        match self.kind {
            Kind::Priorities => task.priority = Some((group % 10) as u8),
            Kind::Namespaces => task.namespace = Some(format!("n{}", group % 1_000)),
            Kind::Command => task.run = program("true"),
            Kind::Retries => {
                task.run = program("false");
                task.retry = Some(RetryPolicy {
                    max_attempts: 3,
                    backoff: DurationMs(100),
                    on: Some([OutcomeClass::Failed].into_iter().collect()),
                    ..RetryPolicy::INFRASTRUCTURE_ONLY
                });
            }
            Kind::Noop | Kind::Chain | Kind::Fan => {}
        }
        task
    }

    /// What the task at `i` of a group needs.
    fn needs(&self, ids: &[TaskId], i: usize) -> Vec<String> {
        let needed = match self.kind {
            Kind::Chain if i > 0 => ids.get(i - 1..i),
            Kind::Fan if i > 0 && i + 1 < ids.len() => ids.get(..1),
            Kind::Fan if i > 0 => ids.get(1..i),
            _ => None,
        };
        needed
            .unwrap_or_default()
            .iter()
            .map(TaskId::to_string)
            .collect()
    }

    fn id(&self, ms: u64, number: u64) -> TaskId {
        let mut random = [0_u8; 10];
        // Bytes 0 and 2 give bits to the version and the variant.
        let [_, a, _, b, rest @ ..] = &mut random;
        [*a, *b] = self.run;
        rest.copy_from_slice(number.to_be_bytes().get(2..).unwrap_or(&[0; 6]));
        TaskId::from_parts(ms, random)
    }

    /// The number of a task of this run, from the bytes of its id.
    pub(crate) fn number(&self, id: &[u8]) -> Option<u64> {
        let [_, _, _, _, _, _, _, a, _, b, number @ ..] = id else {
            return None;
        };
        let number = number.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte));
        ([*a, *b] == self.run).then_some(number)
    }

    /// What an event means for a task of this run.
    pub(crate) fn news(&self, event: &[u8]) -> Option<News> {
        let seen = peek(event)?;
        let end = match self.kind {
            Kind::Retries => "task.failed",
            _ => "attempt.succeeded",
        };
        let is_end = seen.kind == end;
        if !is_end && seen.kind != "attempt.started" {
            return None;
        }
        let number = self.number(seen.task?)?;
        Some(News { number, is_end })
    }

    /// Whether ends are told by the orchestrator rather than by agents.
    pub(crate) fn ends_by_orchestrator(&self) -> bool {
        self.kind == Kind::Retries
    }
}

/// What an event means for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// The task's number.
    pub(crate) number: u64,
    /// Whether it ended; otherwise an attempt began.
    pub(crate) is_end: bool,
}

fn encoded_len(task: &Submission) -> usize {
    task.encode().map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::event::{AttemptSucceeded, Event};
    use conductor_protocol::ids::{Lease, Position};

    #[test]
    fn submissions_have_the_size_asked_for() {
        for bytes in [256, 1_024, 4_096, 65_536] {
            let task = Workload::new(Kind::Noop, bytes, 7).group(3).remove(0);
            let len = encoded_len(&task);
            assert!(len <= bytes && len + 16 > bytes, "{len} for {bytes}");
        }
    }

    #[test]
    fn a_task_is_known_by_the_number_in_its_id() {
        let ours = Workload::new(Kind::Noop, 256, 0xabcd);
        let other = Workload::new(Kind::Noop, 256, 0xabce);
        for number in [0, 1, 63, 64, 5_000_000_000] {
            let task = ours.group(number).remove(0).id.unwrap();
            assert_eq!(ours.number(&task.to_bytes()), Some(number));
            assert_eq!(other.number(&task.to_bytes()), None);
            let lease = Lease {
                task,
                attempt: 1,
                assigned: Position::new(1, 0),
            };
            let ended = Event::from(AttemptSucceeded {
                lease,
                result: None,
                exit_code: None,
                usage: None,
                output: None,
            });
            let news = News {
                number,
                is_end: true,
            };
            assert_eq!(ours.news(&ended.encode()), Some(news));
        }
    }

    #[test]
    fn graphs_have_the_needs_they_are_named_after() {
        let fan = Workload::new(Kind::Fan, 256, 1).group(2);
        let needs: Vec<usize> = fan.iter().map(|t| t.needs.len()).collect();
        assert_eq!(needs.first(), Some(&0));
        assert_eq!(needs.get(1..101), Some([1; 100].as_slice()));
        assert_eq!(needs.last(), Some(&100));
        let chain = Workload::new(Kind::Chain, 256, 1).group(0);
        let previous = chain[4].id.unwrap().to_string();
        assert_eq!(chain[5].needs, [previous]);
    }
}
