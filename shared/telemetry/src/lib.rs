//! How Conductor is seen: spans and their export.
//!
//! Reading order: [`span`] (what a span says) → [`otlp`] (how it reaches a collector).
//!
//! # Invariants
//! - Nothing here decides anything: a system that nobody watches runs the same.
//! - Memory is bounded, whatever the collector does.
//! - No payload, prompt, output or secret becomes part of what is exported.

pub mod otlp;
pub mod span;

pub use otlp::{ExportError, Exporter, Otlp};
pub use span::{Span, Value};
