//! What attempts report, true or not.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{AttemptFailed, AttemptStarted, AttemptSucceeded, Event};
use conductor_protocol::ids::Lease;

pub(super) fn started(lease: Lease) -> Event {
    AttemptStarted::new(lease, None).into()
}

pub(super) fn succeeded(lease: Lease) -> Event {
    AttemptSucceeded {
        lease,
        result: None,
        exit_code: None,
        usage: None,
        output: None,
    }
    .into()
}

pub(super) fn failed(lease: Lease, class: OutcomeClass) -> Event {
    AttemptFailed {
        lease,
        class,
        message: String::new(),
        result: None,
        exit_code: None,
        signal: None,
        usage: None,
        output: None,
    }
    .into()
}
