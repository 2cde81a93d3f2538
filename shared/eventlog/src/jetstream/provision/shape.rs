//! What the log's stream must be like, so that it loses nothing it acknowledged.

use std::time::Duration;

use async_nats::jetstream::stream::{
    self, Compression, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use conductor_protocol::CellId;
use conductor_protocol::limits::PAYLOAD_BYTES_MAX;
use conductor_protocol::subject::{log_stream, log_subjects, submissions_of_namespaces};

use super::ProvisionError;

/// Window in which the server itself drops a repeated append: an optimisation.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Consumers the log may have; the server's own default is 1,000.
const CONSUMERS_MAX: i32 = 20_000;

/// The log as it is made.
pub(super) fn log_config(cell: &CellId, replicas: usize) -> stream::Config {
    stream::Config {
        name: log_stream(cell),
        description: Some("The event log of a Conductor cell: append-only, never deleted".into()),
        subjects: log_subjects(cell),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        max_message_size: PAYLOAD_BYTES_MAX as i32,
        max_consumers: CONSUMERS_MAX,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        compression: Some(Compression::None),
        ..Default::default()
    }
}

/// Adds to an existing log what can only help; returns whether anything changed.
pub(super) fn complete(config: &mut stream::Config, wanted: &stream::Config) -> bool {
    let before = config.subjects.len();
    for subject in &wanted.subjects {
        if !config.subjects.contains(subject) {
            config.subjects.push(subject.clone());
        }
    }
    let mut has_changed = config.subjects.len() != before;
    for (flag, on) in [
        (&mut config.allow_direct, wanted.allow_direct),
        (&mut config.deny_delete, wanted.deny_delete),
        (&mut config.deny_purge, wanted.deny_purge),
    ] {
        has_changed |= on && !*flag;
        *flag |= on;
    }
    has_changed
}

/// Whether all that a log lacks is what only clients of namespaces need.
pub(super) fn is_usable(found: &stream::Config, wanted: &stream::Config, cell: &CellId) -> bool {
    let optional = submissions_of_namespaces(cell);
    let mut needed = wanted.subjects.iter().filter(|s| **s != optional);
    needed.all(|s| found.subjects.contains(s)) && (found.allow_direct || !wanted.allow_direct)
}

/// Everything that could make this stream lose a record it acknowledged.
pub(super) fn check_config(config: &stream::Config) -> Result<(), ProvisionError> {
    let mut problems = Vec::new();
    let mut check = |is_bad: bool, problem: &str| {
        if is_bad {
            problems.push(problem.to_owned());
        }
    };
    check(config.storage != StorageType::File, "it is kept in memory");
    check(
        config.retention != RetentionPolicy::Limits,
        "it drops records once consumed",
    );
    check(
        !config.max_age.is_zero(),
        "it drops records by age (max_age)",
    );
    check(
        config.max_messages_per_subject > 0,
        "it drops records by count per subject",
    );
    let has_limit = config.max_bytes > 0 || config.max_messages > 0;
    let drops_old = config.discard == DiscardPolicy::Old;
    check(
        has_limit && drops_old,
        "it drops its oldest records when it is full (max_msgs or max_bytes, with discard old)",
    );
    check(
        !config.deny_delete,
        "records can be deleted (deny_delete is off)",
    );
    check(!config.deny_purge, "it can be purged (deny_purge is off)");
    check(
        config.allow_rollup,
        "a publish can roll it up (allow_rollup)",
    );
    check(
        config.allow_message_ttl,
        "a publish can give a record a TTL (allow_msg_ttl)",
    );
    check(config.no_ack, "it acknowledges nothing (no_ack)");
    check(config.sealed, "it is sealed and takes nothing more");
    check(
        config.persist_mode == Some(PersistenceMode::Async),
        "it acknowledges before it writes (persist_mode async)",
    );
    if problems.is_empty() {
        return Ok(());
    }
    Err(ProvisionError::Unsafe {
        stream: config.name.clone(),
        problems,
        remedy: "Conductor does not change an existing log; mend its configuration with the \
                 nats CLI, or name another cell with --cell"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_can_do_without_subjects_of_namespaces_alone() {
        let cell = CellId::default();
        let wanted = stream::Config {
            subjects: log_subjects(&cell),
            allow_direct: true,
            ..Default::default()
        };
        let without = |subject: &str| {
            let mut found = wanted.clone();
            found.subjects.retain(|s| s != subject);
            assert!(complete(&mut found.clone(), &wanted), "it is added");
            is_usable(&found, &wanted, &cell)
        };
        assert!(without("conductor.local.submit.*.*"));
        assert!(!without("conductor.local.submit.*"));
        assert!(!without("conductor.local.control"));
    }

    #[test]
    fn every_way_to_lose_records_is_named() {
        let good = stream::Config {
            deny_delete: true,
            deny_purge: true,
            ..Default::default()
        };
        assert_eq!(check_config(&good), Ok(()));
        let bad = stream::Config {
            max_age: Duration::from_secs(1),
            storage: StorageType::Memory,
            allow_rollup: true,
            ..Default::default()
        };
        let Err(ProvisionError::Unsafe { problems, .. }) = check_config(&bad) else {
            panic!("accepted an unsafe log");
        };
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
