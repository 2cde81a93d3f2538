//! Programs that submit much, through `conductor-client`.

use std::collections::BTreeSet;
use std::sync::Arc;

use conductor_client::{SubmitError, Submitter};
use conductor_domain::state::Outcome;
use conductor_eventlog::jetstream::{Connection, provision::Provision};
use conductor_eventlog::{EventLog, LogError};
use conductor_harness::{System, until_asked};
use conductor_protocol::frame::{Encoding, split_public};
use conductor_protocol::limits::SPEC_BYTES_MAX;
use conductor_protocol::spec::{NoopSpec, RunSpec};
use conductor_protocol::submission::Submission;
use conductor_protocol::{Position, QueueName};

fn task(key: String) -> Submission {
    Submission {
        key: Some(key),
        run: Some(RunSpec::Noop(NoopSpec {})),
        ..Submission::default()
    }
}

fn submitter(system: &System) -> Submitter {
    Submitter::new(Arc::clone(&system.connection) as Arc<dyn EventLog>)
}

/// A server with the streams of a cell, and no process of ours.
async fn with_streams() -> System {
    let system = System::bare().await;
    let how = Provision::default();
    system.connection.provision(&how).await.unwrap();
    system
}

/// Submits `count` tasks from as many callers as there are, one after the other each.
async fn submit_from_many(
    submitter: &Submitter,
    name: &str,
    callers: usize,
    count: usize,
) -> Vec<(Position, String)> {
    let mut running = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (submitter, name) = (submitter.clone(), name.to_owned());
        running.spawn(async move {
            let queue: QueueName = if caller % 4 == 0 { "rare" } else { "default" }
                .parse()
                .unwrap();
            let mut told = Vec::new();
            for n in 0..count {
                let key = format!("{name}-{caller}-{n}");
                let at = submitter.submit(&queue, &task(key.clone())).await.unwrap();
                told.push((at, key));
            }
            told
        });
    }
    running.join_all().await.concat()
}

/// Every submission of the log, as it stands there.
async fn stored(connection: &Connection) -> BTreeSet<(Position, String)> {
    let read = async || -> Result<_, LogError> {
        let mut stored = BTreeSet::new();
        for seq in 1..=connection.last_seq().await? {
            let Some(record) = connection.read(seq).await? else {
                continue;
            };
            let encoding = Encoding::of(record.content_type.as_deref(), &record.payload);
            let elements = split_public(encoding, &record.payload).unwrap();
            for (index, element) in elements.into_iter().enumerate() {
                let (submission, errors) = Submission::read(encoding, element);
                assert!(errors.is_empty(), "{errors:?}");
                let at = Position::new(seq, index as u32);
                stored.insert((at, submission.key.unwrap()));
            }
        }
        Ok(stored)
    };
    until_asked(async || read().await.map_err(|e| e.to_string())).await
}

#[tokio::test]
async fn many_submitters_share_records_and_each_learns_its_place() {
    let system = with_streams().await;
    let submitter = submitter(&system);
    let told = submit_from_many(&submitter, "many", 64, 20).await;
    assert_eq!(told.len(), 64 * 20);
    let told: BTreeSet<_> = told.into_iter().collect();
    assert_eq!(stored(&system.connection).await, told);
    let records = system.connection.last_seq().await.unwrap();
    assert!(records < 64 * 20 / 4, "{records} records for 1280 tasks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_and_doubles_nothing() {
    let mut system = with_streams().await;
    let submitter = submitter(&system);
    let connection = Arc::clone(&system.connection);
    let submitting = {
        let submitter = submitter.clone();
        tokio::spawn(async move { submit_from_many(&submitter, "killed", 32, 100).await })
    };
    for at_least in [5, 40] {
        until_asked(async || match connection.last_seq().await {
            Ok(seq) if seq >= at_least => Ok(()),
            other => Err(format!("{at_least} records: {other:?}")),
        })
        .await;
        let server = system.server.as_mut().unwrap();
        server.server.kill();
        server.start_again();
    }
    let told: BTreeSet<_> = submitting.await.unwrap().into_iter().collect();
    assert_eq!(told.len(), 32 * 100, "each stands by itself");
    assert_eq!(stored(&system.connection).await, told);
}

#[tokio::test]
async fn one_that_is_too_large_is_refused_alone() {
    let system = with_streams().await;
    let (submitter, queue) = (submitter(&system), "default".parse().unwrap());
    let mut large = task("large".to_owned());
    large.metadata = [("x".to_owned(), "x".repeat(SPEC_BYTES_MAX))].into();
    let (refused, told) = tokio::join!(
        submitter.submit(&queue, &large),
        submit_from_many(&submitter, "small", 8, 2)
    );
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(
        matches!(refused, Err(SubmitError::TooLarge { .. })),
        "{text}"
    );
    assert!(text.contains(&SPEC_BYTES_MAX.to_string()), "{text}");
    let told: BTreeSet<_> = told.into_iter().collect();
    assert_eq!(stored(&system.connection).await, told);
}

#[tokio::test]
async fn what_a_program_submits_is_run() {
    let system = System::up().await;
    let (submitter, queue) = (submitter(&system), "default".parse().unwrap());
    let mut tasks: Vec<_> = (0..50).map(|n| task(format!("run-{n}"))).collect();
    for task in &mut tasks {
        task.id = Some(conductor_harness::system::new_id());
    }
    tasks[49].needs = vec![tasks[0].id.unwrap().to_string()];
    submitter.submit_all(&queue, &tasks).await.unwrap();
    let mut story = system.story().await;
    for task in &tasks {
        assert_eq!(story.outcome(task.id.unwrap()).await, Outcome::Succeeded);
    }
    system.assert_replay_agrees().await;
}
