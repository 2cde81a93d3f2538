//! Decoding of the kinds that nearly all of a log consists of.
//!
//! serde would take most of the time of a replay for them (`loadtest/instructions.txt`). What
//! is read here is read as serde reads it, which a test compares; what is not written as our
//! own encoder writes it is left to serde.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{AttemptAssigned, AttemptStarted, AttemptSucceeded, Event, TaskAccepted};
use crate::compact::Pairs;
use crate::ids::{Lease, Namespace, Position, QueueName, TaskId};
use crate::msgpack::Reader;
use crate::spec::{NoopSpec, PRIORITY_DEFAULT, RunSpec, Runtime, TaskSpec};

/// In how many maps a field stands, at most: the event and the spec in it.
const OUTSIDE: usize = 2;

/// Reads an event of a frequent kind that stands first in `bytes`, and how many of them it
/// takes; `None` leaves it to serde.
pub(super) fn read(kind: &str, v: u64, bytes: &[u8]) -> Option<(Event, usize)> {
    let r = &mut Reader::new(bytes);
    let event = match (kind, v) {
        ("task.accepted", 1) => accepted(r).map(Event::TaskAccepted),
        ("attempt.assigned", 1) => assigned(r).map(Event::AttemptAssigned),
        ("attempt.started", 1) => started(r).map(Event::AttemptStarted),
        ("attempt.succeeded", 1) => succeeded(r).map(Event::AttemptSucceeded),
        _ => None,
    };
    Some((event?, r.at()))
}

/// Reads a map: each field is a variable from here on, `None` where the map has none of that
/// name. Leaves to serde a map that has a field twice, or one that is not named here.
macro_rules! read_fields {
    ($r:ident: $($field:ident by $read:path),* $(,)?) => {
        $(let mut $field = None;)*
        for _ in 0..$r.map()? {
            match $r.key()? {
                $(name if name == stringify!($field).as_bytes() => {
                    if $field.replace($read($r)?).is_some() {
                        return None;
                    }
                })*
                // The head of an event, which is known.
                b"type" => {
                    text::<&str>($r)?;
                }
                b"v" => {
                    uint::<u64>($r)?;
                }
                _ => return None,
            }
        }
    };
}

fn text<'a, T: From<&'a str>>(r: &mut Reader<'a>) -> Option<T> {
    r.str().map(T::from)
}

fn uint<T: TryFrom<u64>>(r: &mut Reader<'_>) -> Option<T> {
    r.uint()
}

fn serde<T: DeserializeOwned>(r: &mut Reader<'_>) -> Option<T> {
    rmp_serde::from_slice(r.value(OUTSIDE)?).ok()
}

fn queue_name(r: &mut Reader<'_>) -> Option<QueueName> {
    r.str().map(QueueName::from_log)
}

fn namespace_name(r: &mut Reader<'_>) -> Option<Namespace> {
    r.str().map(Namespace::from_log)
}

fn runtime_name(r: &mut Reader<'_>) -> Option<Runtime> {
    Some(match r.key()? {
        b"command" => Runtime::Command,
        b"claude" => Runtime::Claude,
        b"noop" => Runtime::Noop,
        b"codex" => Runtime::Codex,
        b"acp" => Runtime::Acp,
        _ => return None,
    })
}

fn run_spec(r: &mut Reader<'_>) -> Option<Arc<RunSpec>> {
    match r.value(OUTSIDE)? {
        b"\x81\xa4noop\x80" => Some(Arc::new(RunSpec::Noop(NoopSpec {}))),
        other => rmp_serde::from_slice(other).ok(),
    }
}

fn accepted(r: &mut Reader<'_>) -> Option<TaskAccepted> {
    read_fields!(r:
        submission by Position::read,
        task by TaskId::read,
        spec by task_spec,
    );
    Some(TaskAccepted {
        submission: submission?,
        task: task?,
        spec: Arc::new(spec?),
    })
}

fn task_spec(r: &mut Reader<'_>) -> Option<TaskSpec> {
    read_fields!(r:
        name by text,
        queue by queue_name,
        namespace by namespace_name,
        priority by uint,
        labels by Pairs::read,
        needs by serde,
        on_need_failed by serde,
        retry by serde,
        timeouts by serde,
        start_at_ms by uint,
        concurrency by serde,
        slots by uint,
        metadata by Pairs::read,
        key by text,
        reply by text,
        traceparent by text,
        terms by serde,
        runtime by runtime_name,
        run by run_spec,
    );
    Some(TaskSpec {
        name,
        queue: queue?,
        namespace: namespace.unwrap_or_default(),
        priority: priority.unwrap_or(PRIORITY_DEFAULT),
        labels: labels.unwrap_or_default(),
        needs: needs.unwrap_or_default(),
        on_need_failed: on_need_failed.unwrap_or_default(),
        retry: retry.unwrap_or_default(),
        timeouts: timeouts.unwrap_or_default(),
        start_at_ms,
        concurrency,
        slots: slots.unwrap_or(1),
        metadata: metadata.unwrap_or_default(),
        key,
        reply,
        traceparent,
        terms: terms.map(Arc::new),
        runtime: runtime?,
        run,
    })
}

fn assigned(r: &mut Reader<'_>) -> Option<AttemptAssigned> {
    read_fields!(r:
        task by TaskId::read,
        attempt by uint,
        incarnation by uint,
        slots by uint,
        run by run_spec,
        timeouts by serde,
        queue by queue_name,
        namespace by namespace_name,
        name by text,
        metadata by Pairs::read,
        traceparent by text,
        terms by serde,
        before by serde,
        inputs by serde,
    );
    Some(AttemptAssigned {
        task: task?,
        attempt: attempt?,
        incarnation: incarnation?,
        slots: slots.unwrap_or(1),
        run: run?,
        timeouts: timeouts.unwrap_or_default(),
        queue: queue?,
        namespace: namespace.unwrap_or_default(),
        name,
        metadata: metadata.unwrap_or_default(),
        traceparent,
        terms: terms.map(Arc::new),
        before,
        inputs: inputs.unwrap_or_default(),
    })
}

fn started(r: &mut Reader<'_>) -> Option<AttemptStarted> {
    read_fields!(r:
        lease by Lease::read,
        session by text,
        version by text,
        sandbox by serde,
    );
    Some(AttemptStarted {
        lease: lease?,
        session,
        version,
        sandbox,
    })
}

fn succeeded(r: &mut Reader<'_>) -> Option<AttemptSucceeded> {
    read_fields!(r:
        lease by Lease::read,
        result by text,
        exit_code by serde,
        usage by serde,
        output by serde,
    );
    Some(AttemptSucceeded {
        lease: lease?,
        result,
        exit_code,
        usage,
        output,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compact::Rare;
    use crate::event::{EventError, OutputStats, Usage, kind_and_version};
    use crate::frame;
    use crate::human::DurationMs;
    use crate::spec::{CommandSpec, Concurrency, NeedPolicy, Timeouts};
    use crate::terms::Terms;

    fn one_lease() -> Lease {
        Lease {
            task: TaskId::from_parts(7, [1; 10]),
            attempt: 1,
            assigned: Position::new(9, 2),
        }
    }

    prop_compose! {
        fn a_lease()(ms in 0..1_u64 << 48, attempt: u32, seq: u64, index: u32) -> Lease {
            let task = TaskId::from_parts(ms, [3; 10]);
            Lease { task, attempt, assigned: Position::new(seq, index) }
        }
    }

    fn a_run() -> impl Strategy<Value = RunSpec> {
        prop_oneof![
            Just(RunSpec::Noop(NoopSpec {})),
            ".{0,40}".prop_map(|arg| {
                let argv = vec!["echo".to_owned(), arg];
                RunSpec::Command(Box::new(CommandSpec {
                    argv,
                    ..CommandSpec::default()
                }))
            }),
        ]
    }

    fn pairs() -> impl Strategy<Value = Pairs> {
        proptest::collection::vec(("[a-z]{1,4}", ".{0,40}"), 0..4).prop_map(Pairs::from_iter)
    }

    prop_compose! {
        fn a_spec()(
            name in proptest::option::of(".{0,40}"),
            queue in "[a-z]{1,40}",
            namespace in prop_oneof![Just("default".to_owned()), "[a-z]{1,40}".boxed()],
            (priority, slots) in (0_u8..10, 1_u32..1_000),
            (labels, metadata) in (pairs(), pairs()),
            needs in proptest::collection::vec(0_u64..1 << 48, 0..3),
            (is_skip, has_limit, total) in (any::<bool>(), any::<bool>(), any::<Option<u32>>()),
            start_at_ms: Option<u64>,
            (key, run) in (proptest::option::of(".{1,300}"), proptest::option::of(a_run())),
        ) -> TaskSpec {
            let timeouts = Timeouts {
                total: total.map(|ms| DurationMs(u64::from(ms))),
                ..Timeouts::default()
            };
            let limit = || Box::new(Concurrency { key: "k".to_owned(), limit: 2 });
            let text = |text: &String| Arc::from(text.as_str());
            TaskSpec {
                name: name.as_ref().map(text),
                queue: QueueName::from_log(&queue),
                namespace: Namespace::from_log(&namespace),
                priority,
                labels,
                needs: needs.iter().map(|ms| TaskId::from_parts(*ms, [5; 10])).collect(),
                on_need_failed: if is_skip { NeedPolicy::Skip } else { NeedPolicy::Fail },
                retry: Rare::default(),
                timeouts: Rare::from(timeouts),
                start_at_ms,
                concurrency: has_limit.then(limit),
                slots,
                metadata,
                key: key.as_ref().map(text),
                reply: key.as_ref().map(text),
                traceparent: name.as_ref().map(text),
                terms: has_limit.then(|| Arc::new(Terms { models: vec!["m".into()], ..Terms::default() })),
                runtime: run.as_ref().map_or(Runtime::Claude, RunSpec::runtime),
                run: run.map(Arc::new),
            }
        }
    }

    /// An event of a kind that is read quickly, whatever its fields.
    fn an_event() -> impl Strategy<Value = Event> {
        let accepted = (a_lease(), a_spec()).prop_map(|(lease, spec)| {
            let (submission, task) = (lease.assigned, lease.task);
            let spec = Arc::new(spec);
            Event::from(TaskAccepted {
                submission,
                task,
                spec,
            })
        });
        let assigned = (a_lease(), a_spec(), a_run()).prop_map(|(lease, spec, run)| {
            Event::from(AttemptAssigned {
                task: lease.task,
                attempt: lease.attempt,
                incarnation: lease.assigned.seq,
                slots: spec.slots,
                run: Arc::new(run),
                timeouts: spec.timeouts,
                queue: spec.queue,
                namespace: spec.namespace,
                name: spec.name,
                metadata: spec.metadata,
                traceparent: spec.traceparent,
                before: spec.terms.is_some().then(Box::default),
                terms: spec.terms,
                inputs: Vec::new(),
            })
        });
        let text = || proptest::option::of(".{0,40}");
        let started = (a_lease(), text()).prop_map(|(lease, session)| {
            let version = session.clone();
            Event::from(AttemptStarted {
                lease,
                session,
                version,
                sandbox: None,
            })
        });
        let succeeded =
            (a_lease(), text(), any::<Option<i32>>()).prop_map(|(lease, result, exit_code)| {
                let usage = exit_code.map(|n| Usage {
                    cost_usd: f64::from(n),
                    ..Usage::default()
                });
                let output = exit_code.map(|_| OutputStats::default());
                Event::from(AttemptSucceeded {
                    lease,
                    result,
                    exit_code,
                    usage,
                    output,
                })
            });
        prop_oneof![accepted, assigned, started, succeeded]
    }

    proptest! {
        #[test]
        fn our_own_events_are_read_quickly_and_as_serde_reads_them(event in an_event()) {
            let bytes = event.encode();
            let quick = read(event.kind(), event.version(), &bytes);
            prop_assert_eq!(&quick, &Some((event, bytes.len())));
        }

        #[test]
        fn what_is_read_quickly_is_what_serde_reads(
            event in an_event(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = event.encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let (kind, v) = (event.kind(), event.version());
            if let Some((quick, len)) = read(kind, v, &bytes) {
                let by_serde = Event::from_map(kind, v, &bytes).unwrap();
                prop_assert_eq!(frame::whole(&bytes).map(|(_, len)| len), Some(len));
                // As bytes, for what is not equal to itself.
                prop_assert_eq!(quick.encode(), by_serde.encode());
            }
        }
    }

    /// What an event's bytes are by serde alone, after all of the frame was walked through.
    fn by_serde(bytes: &[u8]) -> Result<Vec<u8>, EventError> {
        let (kind, v) = kind_and_version(bytes).ok_or(EventError::Malformed)?;
        Event::from_map(kind, v, bytes).map(|event| event.encode())
    }

    /// What a frame's events are, read on the way.
    fn on_the_way(frame: &[u8]) -> Result<Vec<Result<Vec<u8>, EventError>>, frame::Malformed> {
        let read = frame::split_with(frame, |rest| {
            if let Some((event, len)) = Event::first_of(rest) {
                return Some((Ok(event.encode()), len));
            }
            let (bytes, len) = frame::whole(rest)?;
            Some((Event::decode(bytes).map(|event| event.encode()), len))
        });
        read.map(|(_, events)| events)
    }

    fn same_as_by_serde(bytes: &[u8]) {
        let whole = frame::split(bytes);
        let expected = whole.map(|f| f.events.into_iter().map(by_serde).collect::<Vec<_>>());
        assert_eq!(on_the_way(bytes), expected);
    }

    proptest! {
        #[test]
        fn a_damaged_frame_gives_what_it_gives_by_serde(
            events in proptest::collection::vec(an_event(), 1..4),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let events: Vec<_> = events.iter().map(Event::encode).collect();
            let mut bytes = frame::join(frame::FrameHead::epoch(7), &events);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            same_as_by_serde(&bytes);
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_at_the_same_depth() {
        let lease = one_lease();
        let lease = rmp_serde::to_vec_named(&lease).unwrap();
        let mut read = 0;
        for depth in 50..70 {
            // An unknown field of the usage, and one of the event itself.
            let nested = [vec![0x91; depth], vec![0xc0]].concat();
            let usage = [b"\x81\xa4deep".as_slice(), &nested].concat();
            for (name, value) in [("usage", &usage), ("other", &nested)] {
                let mut event = b"\x84\xa4type\xb1attempt.succeeded\xa1v\x01\xa5lease".to_vec();
                event.extend_from_slice(&lease);
                event.push(0xa5);
                event.extend_from_slice(name.as_bytes());
                event.extend_from_slice(value);
                let bytes = frame::join(frame::FrameHead::incarnation(7), &[event]);
                read += usize::from(frame::split(&bytes).is_ok());
                same_as_by_serde(&bytes);
            }
        }
        assert!(
            (1..40).contains(&read),
            "some are too deep, and some are not"
        );
    }

    #[test]
    fn a_name_that_is_no_text_is_refused_though_another_follows() {
        let event = b"\x83\xa4type\xa1\xff\xa4type\xb0attempt.started\xa1v\x01";
        assert_eq!(Event::decode(event), Err(EventError::Malformed));
    }

    #[test]
    fn what_is_twice_there_or_unknown_is_left_to_serde() {
        let lease = one_lease();
        let bytes = Event::from(AttemptStarted {
            lease,
            session: None,
            version: None,
            sandbox: None,
        })
        .encode();
        let with = |more: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[0] += 1;
            bytes.extend_from_slice(more);
            bytes
        };
        let newer = with(b"\xa5newer\x07");
        assert_eq!(read("attempt.started", 1, &newer), None);
        assert!(Event::decode(&newer).is_ok());
        let lease_again = rmp_serde::to_vec_named(&lease).unwrap();
        let twice = with(&[b"\xa5lease".as_slice(), &lease_again].concat());
        assert!(Event::decode(&twice).is_err());
    }
}
