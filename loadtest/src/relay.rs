//! How long records in a row take without any rules: bare clients in processes of their own, each
//! of which hands on what it hears. What one task at a time is compared with: its records, too,
//! are each written only once the one before is synced and heard of.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::{Context, stream};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::ground::Ground;
use crate::latency::Latency;
use crate::outcome::{Outcome, say};
use crate::plan::{SystemPlan, Target};
use crate::raw::{ROUND_TRIP_BYTES, RawPlan, RawResult, context};
use crate::system::role;

/// The stream that holds the records.
const STREAM: &str = "RELAY";
/// What a process says once it hears.
const HEARS: &str = "the relay hears";
/// How long a process may take until it hears.
const START: Duration = Duration::from_secs(30);
/// How long a record may take that is not lost.
const LOST: Duration = Duration::from_secs(10);
/// Records of a task until its attempt has begun: submitted, accepted, assigned, started.
const RECORDS: usize = 4;

/// What one process of the relay does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum RelayPlan {
    /// Writes the first record and waits until it hears the last, for so many seconds; before
    /// that, as long, the same for a record that nobody else hears.
    Time(f64),
    /// Writes the next record for each that it hears of these.
    HandOn(Vec<usize>),
}

/// What a process of the relay measured: nothing where it hands on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RelayResult {
    /// One record, from its publish until whoever wrote it hears it.
    pub(crate) one: Option<Latency>,
    /// All of them in a row.
    pub(crate) all: Option<Latency>,
}

/// The relay, and what it is measured in.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// One acknowledged publish at a time, on the same server just before.
    pub(crate) round_trip: Option<Latency>,
    pub(crate) relay: RelayResult,
}

/// A process of the relay.
pub(crate) fn main(target: &Target, plan: &RelayPlan) -> Outcome<RelayResult> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let js = context(target).await?;
        match plan {
            RelayPlan::Time(seconds) => time(&js, *seconds).await,
            RelayPlan::HandOn(heard) => {
                let hearing = heard.iter().map(|n| hear(&js, *n));
                let tails = try_join_all(hearing).await?;
                say(HEARS);
                let handing_on = heard.iter().zip(tails);
                try_join_all(handing_on.map(|(n, tail)| hand_on(&js, tail, n + 1))).await?;
                Ok(RelayResult::default())
            }
        }
    })
}

fn subject(nth: usize) -> String {
    format!("{STREAM}.{nth}")
}

async fn hear(js: &Context, nth: usize) -> Outcome<pull::Ordered> {
    let config = pull::OrderedConfig {
        filter_subject: subject(nth),
        deliver_policy: DeliverPolicy::New,
        ..Default::default()
    };
    let stream = js.get_stream(STREAM).await?;
    Ok(stream.create_consumer(config).await?.messages().await?)
}

async fn hand_on(js: &Context, mut heard: pull::Ordered, nth: usize) -> Outcome<()> {
    let subject = subject(nth);
    while let Some(message) = heard.next().await {
        let payload = message?.payload.clone();
        let sent = js.publish(subject.clone(), payload).await?;
        // Nobody waits for it but whoever looks whether it is there.
        tokio::spawn(async move { sent.await.is_ok() });
    }
    Ok(())
}

async fn time(js: &Context, seconds: f64) -> Outcome<RelayResult> {
    // A number that nobody hands on.
    let alone = RECORDS + 1;
    Ok(RelayResult {
        one: heard(js, alone, alone, seconds).await?,
        all: heard(js, 1, RECORDS, seconds).await?,
    })
}

async fn heard(js: &Context, first: usize, last: usize, seconds: f64) -> Outcome<Option<Latency>> {
    let subject = subject(first);
    let payload = Bytes::from(vec![b'x'; ROUND_TRIP_BYTES]);
    let time = Duration::from_secs_f64(seconds);
    let mut ends = hear(js, last).await?;
    let (begin, mut spans) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let sent = Instant::now();
        let acknowledged = js.publish(subject.clone(), payload.clone()).await?;
        let end = tokio::time::timeout(LOST, ends.next()).await;
        end.map_err(|_| "a record of the relay is lost")?
            .ok_or("the relay's tail has ended")??;
        spans.push(sent.elapsed().as_nanos() as u64);
        acknowledged.await?;
    }
    Ok(Latency::of(spans.into_iter(), true))
}

/// Measures it on a server of its own, in the processes in which `conductor` writes a task's
/// records: who submits and observes, who decides, who runs.
pub(crate) fn measure(seconds: f64) -> Outcome<Measured> {
    let ground = Ground::start(&SystemPlan::default())?;
    let target = ground.target();
    let mut raw = role(
        "raw",
        &target,
        &RawPlan::round_trips(seconds, 1),
        ground.dir(),
    )?;
    let raw: RawResult = raw.result()?;
    make_stream(&target)?;
    let start = |plan: &RelayPlan| role("relay", &target, plan, ground.dir());
    let mut relays = Vec::new();
    for heard in [vec![1, 2], vec![3]] {
        let mut relay = start(&RelayPlan::HandOn(heard))?;
        relay.wait_says(HEARS, START)?;
        relays.push(relay);
    }
    let mut timer = start(&RelayPlan::Time(seconds))?;
    Ok(Measured {
        round_trip: raw.round_trip,
        relay: timer.result()?,
    })
}

fn make_stream(target: &Target) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{STREAM}.>")],
            ..Default::default()
        };
        context(target).await?.create_stream(config).await?;
        Ok(())
    })
}
