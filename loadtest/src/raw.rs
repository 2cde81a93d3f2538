//! What the bare client and server give: one message for each event, each acknowledged, and
//! one consumer that acknowledges each. What Conductor is compared with.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::plan::Target;
use crate::workload::now_ms;

/// Events of one task: accepted, assigned, started, ended, and its submission.
pub(crate) const EVENTS_PER_TASK: f64 = 5.0;
/// Bytes of an event.
const EVENT_BYTES: usize = 200;
/// Bytes of the message whose round trip is measured.
pub(crate) const ROUND_TRIP_BYTES: usize = 256;

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RawPlan {
    /// Publishes without an acknowledgement at once.
    pub(crate) window: usize,
    /// Seconds of publishing and consuming; 0 for none.
    pub(crate) seconds: f64,
    /// Seconds of single round trips; 0 for none.
    pub(crate) round_trips: f64,
    /// Replicas of the stream.
    pub(crate) replicas: usize,
    /// Who consumes.
    pub(crate) consumer: Consumer,
}

impl RawPlan {
    /// Single round trips alone.
    pub(crate) fn round_trips(seconds: f64, replicas: usize) -> Self {
        Self {
            window: 1,
            seconds: 0.0,
            round_trips: seconds,
            replicas,
            consumer: Consumer::None,
        }
    }
}

/// Who consumes what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Consumer {
    /// Nobody
    None,
    /// One that the server remembers on disk, as it does unless told otherwise
    #[default]
    File,
    /// One that the server remembers in memory
    Memory,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RawResult {
    /// Publishes without an acknowledgement at once.
    pub(crate) window: usize,
    /// Who consumed.
    pub(crate) consumer: Consumer,
    /// Messages published and acknowledged a second.
    pub(crate) published_per_s: f64,
    /// Messages consumed and acknowledged a second, from the first publish to the last
    /// acknowledgement.
    pub(crate) consumed_per_s: f64,
    /// Tasks a second: what both of them keep up with, over the events of a task.
    pub(crate) tasks_per_s: f64,
    /// The round trip of a single acknowledged publish.
    pub(crate) round_trip: Option<Latency>,
    /// When it was measured, by the machine's clock.
    pub(crate) window_ms: (u64, u64),
}

/// Measures it.
pub(crate) fn main(target: &Target, plan: &RawPlan) -> Outcome<RawResult> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(target, plan))
}

/// A client of its own.
pub(crate) async fn context(target: &Target) -> Outcome<Context> {
    let servers: Vec<&str> = target.url.split(',').collect();
    let client = async_nats::ConnectOptions::new().connect(servers).await?;
    Ok(jetstream::new(client))
}

async fn run(target: &Target, plan: &RawPlan) -> Outcome<RawResult> {
    let js = context(target).await?;
    let name = format!("RAW_{}", fastrand::u32(..));
    let config = stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        num_replicas: plan.replicas,
        ..Default::default()
    };
    let _stream = js.create_stream(config).await?;
    let mut result = RawResult {
        window: plan.window,
        consumer: plan.consumer,
        ..RawResult::default()
    };
    let begin = now_ms();
    if plan.round_trips > 0.0 {
        result.round_trip = round_trips(&js, &name, plan.round_trips).await?;
    }
    if plan.seconds > 0.0 {
        let consumer = context(target).await?;
        let (published, seconds, all) = events(&js, consumer, &name, plan).await?;
        result.published_per_s = published as f64 / seconds;
        result.consumed_per_s = published as f64 / all;
        result.tasks_per_s = result.consumed_per_s / EVENTS_PER_TASK;
    }
    result.window_ms = (begin, now_ms());
    js.delete_stream(&name).await?;
    Ok(result)
}

/// One publish after the other, each waiting for its acknowledgement.
async fn round_trips(js: &Context, name: &str, seconds: f64) -> Outcome<Option<Latency>> {
    let payload = Bytes::from(vec![b'x'; ROUND_TRIP_BYTES]);
    let subject = format!("{name}.round");
    let (begin, mut spans) = (Instant::now(), Vec::new());
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        let sent = Instant::now();
        js.publish(subject.clone(), payload.clone()).await?.await?;
        spans.push(sent.elapsed().as_nanos() as u64);
    }
    Ok(Latency::of(spans.into_iter(), true))
}

/// Publishes for so long and consumes all of it; returns how many, the seconds of
/// publishing, and those until the last was consumed.
async fn events(
    js: &Context,
    consumer: Context,
    name: &str,
    plan: &RawPlan,
) -> Outcome<(u64, f64, f64)> {
    let config = pull::Config {
        durable_name: Some("raw".to_owned()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: format!("{name}.event"),
        max_ack_pending: 20_000,
        memory_storage: plan.consumer == Consumer::Memory,
        ..Default::default()
    };
    let stream = consumer.get_stream(name).await?;
    let consumer = stream.create_consumer(config).await?;
    let is_alone = plan.consumer == Consumer::None;
    let (told, mut total) = tokio::sync::watch::channel(u64::MAX);
    let consuming = tokio::spawn(async move {
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(1_000)
            .messages()
            .await?;
        let mut seen = 0_u64;
        while !is_alone && seen < *total.borrow() {
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { break };
                    message?.ack().await?;
                    seen += 1;
                }
                _ = total.changed() => {}
            }
        }
        Outcome::Ok(())
    });
    let begin = Instant::now();
    let published = publish_events(js, name, plan).await?;
    let seconds = begin.elapsed().as_secs_f64();
    told.send_replace(published);
    consuming.await??;
    Ok((published, seconds, begin.elapsed().as_secs_f64()))
}

async fn publish_events(js: &Context, name: &str, plan: &RawPlan) -> Outcome<u64> {
    let payload = Bytes::from(vec![b'x'; EVENT_BYTES]);
    let subject: async_nats::Subject = format!("{name}.event").into();
    let end = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let (mut acks, mut published) = (FuturesUnordered::new(), 0_u64);
    while Instant::now() < end {
        while acks.len() < plan.window {
            acks.push(
                js.publish(subject.clone(), payload.clone())
                    .await?
                    .into_future(),
            );
        }
        if let Some(ack) = acks.next().await {
            ack?;
            published += 1;
        }
    }
    while let Some(ack) = acks.next().await {
        ack?;
        published += 1;
    }
    Ok(published)
}
