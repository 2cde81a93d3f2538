//! Health, of a real log and a replica that says what it is told to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use conductor_eventlog::Append;
use conductor_eventlog::jetstream::Connect;
use conductor_eventlog::jetstream::provision::Provision;
use conductor_harness::{TestServer, http};

use super::*;

/// Records of the log, and how many of them a replica may not have read yet.
const RECORDS: u64 = 9;
const BOUND: u64 = 5;

async fn log_of(server: &TestServer, records: u64) -> Arc<Connection> {
    let connect = Connect::to(server.url(), "test", "local".parse().unwrap());
    let connection = Connection::open(&connect).await.unwrap();
    let how = Provision {
        replicas: 1,
        ..Provision::default()
    };
    connection.provision(&how).await.unwrap();
    for n in 0..records {
        let append = Append {
            subject: "conductor.local.control".to_owned(),
            payload: "[]".into(),
            id: n.to_string(),
            expected_last: None,
        };
        connection.append(&append).await.unwrap();
    }
    Arc::new(connection)
}

#[tokio::test]
async fn a_replica_that_lags_more_than_its_bound_is_not_ready_until_it_lags_less() {
    let server = TestServer::start();
    let watched = Arc::new(Watched::default());
    let listener = serve::listen("127.0.0.1:0".parse().unwrap(), false).await;
    let listener = listener.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let health = Well {
        watched: Arc::clone(&watched),
        behind_max: BOUND,
    };
    tokio::spawn(serve::serve(
        listener,
        Sight {
            cell: "local".to_owned(),
            sources: Vec::new(),
            health: Box::new(health),
        },
    ));
    let ready = async || {
        let answer = http::get(&at, "/readyz", "*/*").await;
        (answer.status, answer.body)
    };
    let no = |why: &str| (503, format!("{why}\n"));
    assert_eq!(ready().await, no("not connected to NATS yet"));
    let _ = watched.connection.set(log_of(&server, RECORDS).await);
    assert_eq!(ready().await, no("the streams are not there yet"));
    watched.has_started.store(true, Ordering::Release);
    let (shown, status) = watch::channel(ReplicaStatus::default());
    let _ = watched.replica.set(status);
    assert_eq!(ready().await, no("the log is not read to its end yet"));
    let at_seq = |seq| ReplicaStatus {
        seq,
        is_caught_up: true,
        ..ReplicaStatus::default()
    };
    // It has read all once, and fell behind since.
    for (seq, expected) in [
        (RECORDS, (200, "ok\n".to_owned())),
        (RECORDS - BOUND - 1, no("6 records behind the log")),
        (0, no("9 records behind the log")),
        (RECORDS - BOUND, (200, "ok\n".to_owned())),
    ] {
        shown.send_replace(at_seq(seq));
        assert_eq!(ready().await, expected, "at {seq}");
    }
    shown.send_replace(ReplicaStatus {
        stopped: Some("a record of a later format".to_owned()),
        ..at_seq(RECORDS)
    });
    assert_eq!(ready().await, no("a record of a later format"));
    assert_eq!(http::get(&at, "/livez", "*/*").await.status, 200);
    assert_eq!(http::get(&at, "/startupz", "*/*").await.status, 200);
}
