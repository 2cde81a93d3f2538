//! How Conductor is seen: spans and their export, figures and health.
//!
//! Reading order: [`span`] (what a span says) → [`otlp`] (how it reaches a collector) → [`live`] (those of this
//! process);
//! [`metrics`] (what is counted as it happens) and [`sample`] (what is read when somebody asks)
//! → [`serve`] (where both are shown, and whether the process is well); [`logs`].
//!
//! # Invariants
//! - Nothing here decides anything: a system that nobody watches runs the same.
//! - Memory is bounded, whatever the collector does.
//! - No payload, prompt, output or secret becomes part of what is exported.

pub mod host;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod otlp;
mod plain_text;
pub mod sample;
pub mod serve;
pub mod span;

pub use metrics::metrics;
pub use otlp::{ExportError, Exporter, Otlp};
pub use sample::{Sample, Source};
pub use span::{Span, Value};
