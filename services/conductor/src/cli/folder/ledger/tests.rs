//! Files and what becomes of them, without a folder and without a log.

use std::sync::Arc;

use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::state::{Ended, Outcome, Phase, Task};
use conductor_domain::{Decoded, State, Verdict};
use conductor_protocol::compact::Rare;
use conductor_protocol::event::{
    AttemptArtifact, AttemptSucceeded, Event, TaskAccepted, TaskDuplicate, TaskRejected,
};
use conductor_protocol::frame::{Encoding, FrameHead};
use conductor_protocol::ids::Lease;
use conductor_protocol::subject::Role;
use conductor_protocol::submission::{Context, Submission, resolve_all};
use conductor_protocol::{CellId, TaskSpec};
use serde_json::json;

use super::*;

const NOW: UnixMs = 1_700_000_000_000;

fn id(n: u8) -> TaskId {
    TaskId::from_parts(NOW, [n; 10])
}

fn order(submission: serde_json::Value) -> Order {
    Order {
        queue: "q".parse().unwrap(),
        submission: serde_json::from_value(submission).unwrap(),
        origin: "a".to_owned(),
    }
}

fn noop() -> Order {
    order(json!({"run": {"noop": {}}}))
}

/// A ledger that follows a log of its own.
struct Books {
    ledger: Ledger,
    state: State,
}

impl Books {
    fn new() -> Self {
        let cell: CellId = "local".parse().unwrap();
        Self {
            ledger: Ledger::default(),
            state: State::new(cell),
        }
    }

    /// The file `name` is found as it is numbered, with this content.
    fn find(&mut self, name: &str, print: u64, content: &str, order: Order, new: u8) -> Claim {
        let found = (Print::numbered(print), content.to_owned());
        let fresh = (format!("key-{name}-{print}"), id(new), NOW);
        assert!(self.ledger.wants(name, found.0), "{name} is not wanted");
        self.ledger.claim(name, found, order, fresh)
    }

    fn submit(&mut self, name: &str, print: u64, new: u8) -> Status {
        match self.find(name, print, "content", noop(), new) {
            Claim::Submit(order, status) => {
                assert_eq!(order.submission.id, Some(status.id));
                status
            }
            Claim::Known => panic!("{name} is known"),
        }
    }

    /// All of its files so far are handed over to be sent.
    fn sending(&mut self) {
        let names: Vec<String> = self.ledger.files.keys().cloned().collect();
        self.ledger.sending(&names);
    }

    fn sent(&mut self, name: &str, seq: u64) {
        let at = Position::new(seq, 0);
        self.ledger.sent(&BTreeMap::from([(at, name.to_owned())]));
    }

    /// A record with these events, all of which count.
    fn says(&mut self, events: Vec<Event>) {
        self.state.seq += 1;
        let folded = Folded {
            verdicts: vec![Verdict::Applied; events.len()],
            ..Folded::default()
        };
        let record = Decoded {
            seq: self.state.seq,
            time_ms: NOW,
            content: Content::Leader {
                role: Role::Orchestrator,
                agent: None,
                head: FrameHead::default(),
                items: events.into_iter().map(Ok).collect(),
            },
        };
        self.ledger.see(&self.state, &record, &folded);
    }

    fn is(&mut self, task: TaskId, phase: Phase) {
        let task_now = Task {
            submission: Position::new(1, 0),
            accepted_ms: NOW,
            spec: Arc::new(spec()),
            phase,
            attempts: 1,
            aside: Rare::default(),
        };
        self.state.tasks.insert(task, Box::new(task_now));
    }

    fn accepted(&mut self, task: TaskId, seq: u64) {
        self.is(task, Phase::Pending { not_before_ms: 0 });
        let accepted = TaskAccepted {
            submission: Position::new(seq, 0),
            task,
            spec: Arc::new(spec()),
        };
        self.says(vec![accepted.into()]);
    }

    /// Its only attempt leaves a file and succeeds, in one record.
    fn succeeds(&mut self, task: TaskId) {
        self.is(
            task,
            Phase::Ended(Ended {
                outcome: Outcome::Succeeded,
                class: None,
                at: Position::new(self.state.seq, 1),
                at_ms: NOW,
            }),
        );
        let lease = Lease {
            task,
            attempt: 1,
            assigned: Position::new(1, 0),
        };
        let artifact = AttemptArtifact {
            lease,
            name: "log".to_owned(),
            sha256: "ab".to_owned(),
            size: 3,
            media_type: None,
        };
        let succeeded = AttemptSucceeded {
            lease,
            result: Some("fine".to_owned()),
            exit_code: Some(0),
            usage: None,
            output: None,
        };
        self.says(vec![artifact.into(), succeeded.into()]);
    }

    fn writes(&mut self) -> Vec<Writing> {
        let writings = self.ledger.take_writings();
        for writing in &writings {
            self.ledger.written(writing);
        }
        writings
    }

    fn writes_one(&mut self) -> Writing {
        let mut writings = self.writes();
        assert_eq!(writings.len(), 1, "{writings:?}");
        writings.remove(0)
    }
}

fn spec() -> TaskSpec {
    let (cell, queue) = ("local".parse().unwrap(), "q".parse().unwrap());
    let context = Context {
        cell: &cell,
        seq: 1,
        time_ms: NOW,
        queue: &queue,
        reply: None,
        traceparent: None,
    };
    let submission: Submission = noop().submission;
    let bytes = serde_json::to_vec(&submission).unwrap();
    let resolved = resolve_all(&context, Encoding::Json, &[&bytes]).remove(0);
    resolved.unwrap().spec
}

#[test]
fn a_file_is_one_task_from_its_claim_to_its_result() {
    let mut books = Books::new();
    let status = books.submit("a", 1, 1);
    assert_eq!((status.state.as_str(), status.id), (SUBMITTING, id(1)));
    assert_eq!(status.key.as_deref(), Some("key-a-1"));
    books.sending();
    assert!(!books.ledger.may_want("a"));
    books.sent("a", 5);
    assert_eq!(books.writes_one().status.state, SUBMITTED);
    books.accepted(id(1), 5);
    assert_eq!(books.writes_one().status.state, "pending");
    assert!(!books.ledger.may_want("a"), "while its task is open");
    books.succeeds(id(1));
    let last = books.writes_one();
    assert_eq!(last.status.state, "succeeded");
    let result = last.result.unwrap();
    assert_eq!(
        (&result["outcome"], &result["result"]),
        (&json!("succeeded"), &json!("fine"))
    );
    assert_eq!(result["artifacts"][0]["sha256"], "ab");
    assert_eq!(
        (result["exit_code"].as_i64(), result["attempts"].as_u64()),
        (Some(0), Some(1))
    );
    assert!(
        !books.ledger.wants("a", Print::numbered(1)),
        "it is as it was"
    );
    let touched = books.find("a", 2, "content", noop(), 9);
    assert_eq!(touched, Claim::Known, "the same content is the same task");
    let Claim::Submit(_, next) = books.find("a", 3, "other", noop(), 2) else {
        panic!("another content is another task")
    };
    assert_eq!((next.id, next.key.as_deref()), (id(2), Some("key-a-3")));
}

#[test]
fn what_may_be_in_the_log_is_submitted_again_as_what_it_was() {
    let mut books = Books::new();
    let first = books.submit("a", 1, 1);
    books.sending();
    books.ledger.not_sent();
    let again = books.submit("a", 2, 2);
    assert_eq!(again, first, "the same id under the same key");
    // A later process, from what the first wrote.
    let statuses = BTreeMap::from([("a".to_owned(), first.clone())]);
    let (ledger, from) = Ledger::resume(statuses, 90);
    assert_eq!(from, first.after_record);
    books.ledger = ledger;
    assert_eq!(books.submit("a", 3, 3), first);
    // Much later the id is too old to be told from a repeated one; the key is not.
    let found = (Print::numbered(4), "content".to_owned());
    let late = (String::from("other"), id(4), NOW + ID_AGE_MAX_MS + 1);
    let Claim::Submit(_, late) = books.ledger.claim("a", found, noop(), late) else {
        panic!("it is submitted")
    };
    assert_eq!((late.id, &late.key), (id(4), &first.key));
}

#[test]
fn what_the_log_has_is_followed_by_a_later_process() {
    let mut books = Books::new();
    let first = books.submit("a", 1, 1);
    let statuses = BTreeMap::from([("a".to_owned(), first)]);
    (books.ledger, _) = Ledger::resume(statuses, 90);
    // It had been submitted after all, before the process died.
    books.accepted(id(1), 5);
    assert!(!books.ledger.may_want("a"));
    assert_eq!(books.ledger.unknown_to(&books.state), Vec::<&str>::new());
    books.succeeds(id(1));
    assert!(books.writes_one().result.is_some());
    let state = State::new("local".parse().unwrap());
    let mut open = books.submit_open();
    open.state = "running".to_owned();
    let (ledger, from) = Ledger::resume(BTreeMap::from([("b".to_owned(), open)]), 0);
    assert_eq!((ledger.unknown_to(&state), from), (vec!["b"], 0));
}

impl Books {
    fn submit_open(&mut self) -> Status {
        self.submit("b", 7, 7)
    }
}

#[test]
fn a_refusal_is_told_and_tried_again_once_the_file_is_touched() {
    let mut books = Books::new();
    books.submit("a", 1, 1);
    books.sending();
    let errors = vec![FieldError::new("queue", "q is full", "fewer waiting tasks")];
    let rejected = TaskRejected {
        submission: Position::new(5, 0),
        errors,
    };
    // The log may say so before the acknowledgement has come.
    books.says(vec![rejected.into()]);
    books.sent("a", 5);
    let told = books.writes_one();
    assert_eq!(told.status.state, REJECTED);
    assert!(
        told.error
            .unwrap()
            .contains("queue: q is full; expected fewer waiting tasks")
    );
    assert!(!books.ledger.wants("a", Print::numbered(1)));
    let again = books.submit("a", 2, 2);
    assert_eq!(again.id, id(2));
}

#[test]
fn a_key_of_another_task_leads_to_that_task() {
    let mut books = Books::new();
    let keyed = || order(json!({"run": {"noop": {}}, "key": "k"}));
    let Claim::Submit(_, status) = books.find("a", 1, "x", keyed(), 1) else {
        panic!("it is submitted")
    };
    assert_eq!(status.key.as_deref(), Some("k"), "its own key stays");
    books.sending();
    books.sent("a", 5);
    books.writes();
    books.is(id(8), Phase::Pending { not_before_ms: 0 });
    let duplicate = TaskDuplicate {
        submission: Position::new(5, 0),
        task: id(8),
    };
    books.says(vec![duplicate.into()]);
    assert_eq!(books.ledger.take_unread(), [("a".to_owned(), id(8))]);
    assert_eq!(books.writes_one().status.id, id(8));
    // What came before it was followed is not in what was gathered: all is read once it ends.
    books.succeeds(id(8));
    assert_eq!(books.writes(), Vec::new());
    assert_eq!(books.ledger.take_unread(), [("a".to_owned(), id(8))]);
}

#[test]
fn a_file_that_was_gone_is_another_when_it_comes_back() {
    let mut books = Books::new();
    books.submit("a", 1, 1);
    books.sending();
    books.sent("a", 5);
    books.accepted(id(1), 5);
    books.ledger.only(&BTreeSet::new());
    assert!(books.writes_one().status.file_removed);
    books.succeeds(id(1));
    assert!(
        books.writes_one().result.is_some(),
        "its result appears all the same"
    );
    assert_eq!(books.submit("a", 2, 2).id, id(2));
    // Gone before anybody tried to submit it, it is withdrawn.
    books.ledger.only(&BTreeSet::new());
    assert_eq!(books.writes_one().status.state, WITHDRAWN);
    assert_eq!(books.ledger.open(), 0);
}

#[test]
fn what_may_have_been_sent_is_followed_though_its_file_is_gone() {
    let mut books = Books::new();
    let status = books.submit("a", 1, 1);
    books.sending();
    books.ledger.not_sent();
    books.ledger.only(&BTreeSet::new());
    let told = books.writes_one().status;
    assert!(told.file_removed && told.state == SUBMITTING, "{told:?}");
    // It had reached the log after all.
    books.accepted(id(1), 5);
    assert_eq!(books.writes_one().status.state, "pending");
    books.succeeds(id(1));
    assert!(books.writes_one().result.is_some());
    // The same where the process that sent it has died, and where it is claimed again in between.
    let earlier = || BTreeMap::from([("a".to_owned(), status.clone())]);
    (books.ledger, _) = Ledger::resume(earlier(), 90);
    books.ledger.only(&BTreeSet::new());
    assert_eq!(books.writes_one().status.state, SUBMITTING);
    (books.ledger, _) = Ledger::resume(earlier(), 90);
    assert_eq!(books.submit("a", 1, 2).id, id(1));
    books.ledger.only(&BTreeSet::new());
    let left = books.writes_one().status;
    assert_eq!((left.state.as_str(), books.ledger.open()), (SUBMITTING, 1));
    // A later process reads the log to its end, and finds it there, or not and nothing undecided.
    let resume = |state: &State| {
        let (mut ledger, _) = Ledger::resume(BTreeMap::from([("a".to_owned(), left.clone())]), 90);
        ledger.settle(state);
        ledger.only(&BTreeSet::new());
        let writings = ledger.take_writings().into_iter();
        writings.map(|w| w.status.state).collect::<Vec<_>>()
    };
    assert_eq!(resume(&books.state), Vec::<String>::new());
    let none = State::new("local".parse().unwrap());
    assert_eq!(resume(&none), [WITHDRAWN]);
}
