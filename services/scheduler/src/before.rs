//! What another attempt is told of those before it.

use conductor_domain::state::Aside;
use conductor_protocol::OutcomeClass;
use conductor_protocol::human::DurationMs;
use conductor_protocol::terms::Before;

/// What is known of a task's earlier attempts, where there is anything to go on from.
pub(crate) fn of(aside: &Aside) -> Option<Box<Before>> {
    let ran = aside.ran_ms;
    let before = Before {
        session: session(aside),
        usage: aside.usage.clone(),
        ran: (ran > 0).then_some(DurationMs(ran)),
    };
    (before != Before::default()).then(|| Box::new(before))
}

/// The model's session to go on with: not where what it came to stands in the way of a success, and
/// not after every second failure, for it may be what is wrong (agent-facts 5.2).
fn session(aside: &Aside) -> Option<String> {
    let failure = aside.last_failure.as_ref()?;
    let goes_on = match failure.class {
        // Nothing of this is the session's fault.
        OutcomeClass::RateLimited
        | OutcomeClass::AgentLost
        | OutcomeClass::HeartbeatLost
        | OutcomeClass::LeaseExpired => true,
        OutcomeClass::Crashed
        | OutcomeClass::Stalled
        | OutcomeClass::Timeout
        | OutcomeClass::Oom
        | OutcomeClass::ModelError
        | OutcomeClass::CheckFailed => failure.attempt % 2 == 1,
        _ => false,
    };
    let usage = aside.usage.as_ref().filter(|_| goes_on)?;
    usage.session.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_domain::state::Failure;
    use conductor_protocol::event::Usage;
    use conductor_protocol::ids::Position;

    fn after(class: OutcomeClass, attempt: u32) -> Aside {
        Aside {
            last_failure: Some(Failure {
                class,
                attempt,
                at: Position::new(7, 0),
            }),
            usage: Some(Usage {
                session: Some("s".to_owned()),
                output_tokens: 42,
                ..Usage::default()
            }),
            ran_ms: 5,
            ..Aside::default()
        }
    }

    #[test]
    fn a_session_goes_on_after_what_was_not_its_fault_and_after_every_other_failure() {
        let session = |class, attempt| of(&after(class, attempt)).unwrap().session;
        for attempt in 1..5 {
            assert!(session(OutcomeClass::AgentLost, attempt).is_some());
            assert!(session(OutcomeClass::RateLimited, attempt).is_some());
            assert_eq!(session(OutcomeClass::Refused, attempt), None);
            for class in [OutcomeClass::Crashed, OutcomeClass::Stalled] {
                assert_eq!(session(class, attempt).is_some(), attempt % 2 == 1);
            }
        }
    }

    #[test]
    fn what_was_used_is_told_whether_a_session_goes_on_or_not() {
        for class in [OutcomeClass::Crashed, OutcomeClass::Refused] {
            let before = of(&after(class, 1)).unwrap();
            assert_eq!(before.usage.unwrap().output_tokens, 42);
            assert_eq!(before.ran, Some(DurationMs(5)));
        }
        assert_eq!(
            of(&Aside::default()),
            None,
            "a first attempt is told nothing"
        );
    }
}
