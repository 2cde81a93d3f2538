//! The books about what attempts submit.

use std::collections::BTreeMap;

use conductor_protocol::TaskId;
use conductor_protocol::event::{Event, SubtaskNews, Word};
use conductor_protocol::ids::{Lease, Position};

/// A submission of an attempt that counted.
#[derive(Clone, Debug)]
pub struct Filed {
    /// The lease of the attempt.
    pub lease: Lease,
    /// Which of its submissions.
    pub number: u32,
    /// Whether it is decided, and the task that it is then.
    pub decided: Option<Option<TaskId>>,
    /// Whether that task has ended.
    pub has_ended: bool,
    /// Whether the attempt was told what was decided, and whether the end.
    pub told: (bool, bool),
}

/// What attempts submitted, by where they did.
#[derive(Clone, Debug, Default)]
pub struct Filings(pub BTreeMap<Position, Filed>);

impl Filings {
    /// What the attempt assigned there submitted under this number.
    pub fn of(&self, lease: Position, number: u32) -> Option<&Filed> {
        let its = |f: &&Filed| f.lease.assigned == lease && f.number == number;
        self.0.values().find(its)
    }

    /// How many tasks the attempts of a task have submitted.
    pub fn tasks_of(&self, parent: TaskId) -> usize {
        let its = self.0.values().filter(|f| f.lease.task == parent);
        let mut tasks: Vec<TaskId> = its.filter_map(|f| f.decided.flatten()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks.len()
    }

    /// Notes an event that counted; `is_over` tells of a task whether it has ended.
    pub fn note(&mut self, at: Position, event: &Event, is_over: impl Fn(TaskId) -> bool) {
        match event {
            Event::AttemptSubmitted(e) => {
                let filed = Filed {
                    lease: e.lease,
                    number: e.number,
                    decided: None,
                    has_ended: false,
                    told: (false, false),
                };
                self.0.insert(at, filed);
            }
            Event::TaskAccepted(e) => self.decided(e.submission, Some(e.task), false),
            Event::TaskDuplicate(e) => self.decided(e.submission, Some(e.task), is_over(e.task)),
            Event::TaskRejected(e) => self.decided(e.submission, None, false),
            Event::AttemptTold(e) => {
                let Word::Subtask { number, news } = &e.word else {
                    return;
                };
                let its =
                    |f: &&mut Filed| f.lease.assigned == e.lease.assigned && f.number == *number;
                if let Some(filed) = self.0.values_mut().find(its) {
                    match news {
                        SubtaskNews::Ended { .. } => filed.told.1 = true,
                        _ => filed.told.0 = true,
                    }
                }
            }
            _ => {}
        }
    }

    fn decided(&mut self, at: Position, task: Option<TaskId>, has_ended: bool) {
        if let Some(filed) = self.0.get_mut(&at) {
            filed.decided = Some(task);
            filed.has_ended = has_ended;
        }
    }

    /// A task has ended.
    pub fn ended(&mut self, task: TaskId) {
        for filed in self
            .0
            .values_mut()
            .filter(|f| f.decided == Some(Some(task)))
        {
            filed.has_ended = true;
        }
    }
}
