//! Figures that are read when somebody asks for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;

/// What a figure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name; a counter's without `_total`, which the format adds.
    pub name: &'static str,
    /// For people, without a full stop.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Labels beside the cell: of few values.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

impl Sample {
    /// A gauge.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value,
        }
    }

    /// A counter.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            kind: Kind::Counter,
            ..Self::gauge(name, help, value as f64)
        }
    }

    /// With a label more.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

/// Somebody who can be asked for figures. Never waits long: what cannot be had is left out.
pub trait Source: Send + Sync {
    /// What there is now; figures of one name stand together.
    fn samples(&self) -> Pin<Box<dyn Future<Output = Vec<Sample>> + Send + '_>>;
}

/// The figures of one answer, shown in the registry's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered(Arc<Mutex<Vec<Sample>>>);

impl Gathered {
    pub(crate) fn set(&self, samples: Vec<Sample>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }
}

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut samples = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Those of one name must stand together, whoever gave them.
        samples.sort_by_key(|s| s.name);
        let mut rest = samples.as_slice();
        while let Some(first) = rest.first() {
            let of_name = rest.iter().take_while(|s| s.name == first.name).count();
            let (group, others) = rest.split_at(of_name);
            rest = others;
            let kind = match first.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(first.name, first.help, None, kind)?;
            for sample in group {
                let metric = family.encode_family(&sample.labels)?;
                One(sample.kind, sample.value).encode(metric)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct One(Kind, f64);

impl EncodeMetric for One {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        match self.0 {
            Kind::Counter => encoder
                .encode_counter::<prometheus_client::encoding::NoLabelSet, _, f64>(&self.1, None),
            Kind::Gauge => encoder.encode_gauge(&self.1),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.0 {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        }
    }
}
