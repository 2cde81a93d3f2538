//! What the end of an attempt means, in the terms of the log.

use std::time::Duration;

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{AttemptFailed, AttemptSucceeded, Event, OutputStats, Usage};
use conductor_protocol::human::{ByteSize, DurationMs};
use conductor_protocol::ids::Lease;
use conductor_protocol::limits::MESSAGE_BYTES_MAX;

use super::Stop;
use super::program::Ended;
use super::watch::Why;
use crate::files::cut_end;
use crate::reaper::Status;
use crate::runtime::Verdict;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) why: Why,
    /// `None` for success.
    pub(super) failure: Option<(OutcomeClass, String)>,
    pub(super) result: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// The limits that an end may speak of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) run: DurationMs,
    pub(super) silence: Duration,
    pub(super) disk: ByteSize,
}

impl End {
    /// What the end of a program means for its attempt.
    pub(super) fn of(ended: &Ended, verdict: Verdict, limits: Limits) -> Self {
        let (exit_code, signal) = match &ended.status {
            Status::Exited(code) => (Some(*code), None),
            Status::Signalled(signal) => (None, Some(*signal)),
            Status::NotStarted(_) => (None, None),
        };
        Self {
            why: ended.why,
            failure: brought_about(ended.why, limits)
                .or(verdict.failure.map(|failure| limited(failure, ended))),
            result: verdict.result,
            usage: verdict.usage,
            exit_code,
            signal,
        }
    }

    /// The end of one whose program was never run.
    pub(super) fn before(why: Why, problem: String) -> Self {
        let failure = (OutcomeClass::NotStarted, problem);
        Self {
            why,
            failure: brought_about(why, Limits::default()).or(Some(failure)),
            result: None,
            usage: None,
            exit_code: None,
            signal: None,
        }
    }

    /// Makes it one that was stopped.
    pub(super) fn stop(&mut self, reason: Stop) {
        self.why = Why::Stopped(reason);
        self.failure = brought_about(self.why, Limits::default());
    }

    /// Whether it was told to stop: then nothing more is done for it.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.why, Why::Stopped(_))
    }

    /// Whether another attempt may go on from where this one was.
    pub(super) fn may_go_on(&self) -> bool {
        let class = self.failure.as_ref().map(|(class, _)| *class);
        let is_wanted = self.why != Why::Stopped(Stop::Revoked);
        is_wanted && class.is_some_and(OutcomeClass::is_retried_by_default)
    }

    pub(super) fn is_success(&self) -> bool {
        self.failure.is_none()
    }

    /// Makes it a failure, if it is none yet.
    pub(super) fn fail(&mut self, class: OutcomeClass, message: impl Into<String>) {
        if self.failure.is_none() {
            self.failure = Some((class, message.into()));
        }
    }

    /// As it stands in the log.
    pub(super) fn event(self, lease: Lease, output: Option<OutputStats>) -> Event {
        let Self {
            result,
            usage,
            exit_code,
            signal,
            ..
        } = self;
        match self.failure {
            None => Event::from(AttemptSucceeded {
                lease,
                result,
                exit_code,
                usage,
                output,
            }),
            Some((class, message)) => Event::from(AttemptFailed {
                lease,
                class,
                message: cut_end(message, MESSAGE_BYTES_MAX),
                result,
                exit_code,
                signal,
                usage,
                output,
            }),
        }
    }
}

/// What a failure is where a limit brought it about.
fn limited((class, message): (OutcomeClass, String), ended: &Ended) -> (OutcomeClass, String) {
    if ended.oom {
        let message = format!("it had too little memory: {message}");
        return (OutcomeClass::Oom, message);
    }
    match &ended.limit {
        Some(limit) => (class, format!("{limit}: {message}")),
        None => (class, message),
    }
}

/// The failure that we brought about, whatever the program says of its end.
fn brought_about(why: Why, limits: Limits) -> Option<(OutcomeClass, String)> {
    let (class, message) = match why {
        Why::Ended | Why::Lingering | Why::Refused => return None,
        Why::RunTimeout => (
            OutcomeClass::Timeout,
            format!("ran longer than {}", limits.run),
        ),
        Why::Disk => {
            let message = format!(
                "disk: its files took more than {}; let it write less, or raise sandbox.disk",
                limits.disk
            );
            (OutcomeClass::Failed, message)
        }
        Why::Silent => {
            let message = format!("said nothing for {:?}", limits.silence);
            (OutcomeClass::Stalled, message)
        }
        Why::Stopped(Stop::LeaseExpired) => (
            OutcomeClass::LeaseExpired,
            "the log could not be reached".to_owned(),
        ),
        Why::Stopped(_) => (OutcomeClass::AgentLost, "the agent shut down".to_owned()),
    };
    Some((class, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(failure: Option<OutcomeClass>) -> Verdict {
        Verdict {
            failure: failure.map(|class| (class, "its own words".to_owned())),
            result: Some("r".to_owned()),
            usage: None,
        }
    }

    fn class(why: Why, own: Option<OutcomeClass>) -> Option<OutcomeClass> {
        let status = Status::Exited(0);
        let end = End::of(
            &Ended::of(why, status.into()),
            verdict(own),
            Limits::default(),
        );
        end.failure.map(|(class, _)| class)
    }

    #[test]
    fn what_we_brought_about_counts_more_than_what_the_program_says() {
        let own = Some(OutcomeClass::Failed);
        assert_eq!(class(Why::Ended, None), None);
        assert_eq!(class(Why::Ended, own), own);
        assert_eq!(class(Why::Lingering, None), None);
        assert_eq!(class(Why::RunTimeout, None), Some(OutcomeClass::Timeout));
        assert_eq!(class(Why::Silent, own), Some(OutcomeClass::Stalled));
        assert_eq!(class(Why::Disk, None), Some(OutcomeClass::Failed));
        for (stop, expected) in [
            (Stop::LeaseExpired, OutcomeClass::LeaseExpired),
            (Stop::Shutdown, OutcomeClass::AgentLost),
        ] {
            assert_eq!(class(Why::Stopped(stop), own), Some(expected));
        }
    }

    #[test]
    fn the_first_failure_stands() {
        let status = Status::Exited(0);
        let why = Why::Ended;
        let mut end = End::of(
            &Ended::of(why, status.into()),
            verdict(None),
            Limits::default(),
        );
        assert!(end.is_success());
        end.fail(OutcomeClass::CheckFailed, "first");
        end.fail(OutcomeClass::BadOutput, "second");
        assert_eq!(
            end.failure,
            Some((OutcomeClass::CheckFailed, "first".to_owned()))
        );
    }

    #[test]
    fn a_limit_that_ended_it_is_named() {
        let own = Some(OutcomeClass::Crashed);
        let mut ended = Ended::of(Why::Ended, Status::Signalled(9).into());
        ended.limit = Some("it had too many processes".to_owned());
        let limited = End::of(&ended, verdict(own), Limits::default());
        let (class, message) = limited.failure.unwrap();
        assert_eq!(class, OutcomeClass::Crashed);
        assert!(
            message.starts_with("it had too many processes: "),
            "{message}"
        );
        ended.oom = true;
        let oom = End::of(&ended, verdict(own), Limits::default());
        assert_eq!(oom.failure.unwrap().0, OutcomeClass::Oom);
    }
}
