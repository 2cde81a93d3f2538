//! Lines of log on standard error: JSON for machines, plain for people at a terminal.

mod limit;
mod mask;

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::metrics::metrics;
use limit::{Limit, Pass};
use mask::{Mask, Masked};

/// How a process logs.
#[derive(Clone, Debug)]
pub struct Logs {
    /// What is logged: a level, or a filter as `tracing-subscriber` reads it.
    pub filter: String,
    /// Whether a service speaks: then in JSON, unless somebody sits in front of it.
    pub is_service: bool,
    /// The cell, in every line.
    pub cell: String,
    /// What runs, in every line.
    pub role: String,
}

type Handle = reload::Handle<EnvFilter, Registry>;

static FILTER: OnceLock<Handle> = OnceLock::new();

impl Logs {
    /// Logs like this from now on; once in a process.
    pub fn init(self) {
        let (filter, handle) = reload::Layer::new(EnvFilter::new(&self.filter));
        let is_json = self.is_service && !std::io::stderr().is_terminal();
        let mask = Arc::new(Mask::of_env(std::env::vars()));
        let lines = Lines {
            is_json,
            is_limited: self.is_service,
            plain: format::format().with_target(false),
            cell: self.cell,
            role: self.role,
            limit: Limit::default(),
            mask: Arc::clone(&mask),
        };
        // That library says of every request what became of it, and warns of clients that go away or ask
        // for what there is not: whoever asked has the answer, and operators have nothing to do.
        let is_wanted = |m: &tracing::Metadata<'_>| !m.target().starts_with("rmcp");
        let fmt = tracing_subscriber::fmt::layer()
            .with_writer(Masked(mask))
            .with_ansi(!is_json && std::io::stderr().is_terminal())
            // Complaining about a closed standard error on standard error would end the actor
            // that logged.
            .log_internal_errors(false)
            .event_format(lines)
            .with_filter(filter_fn(is_wanted));
        // Whoever was first stays.
        if tracing_subscriber::registry()
            .with(filter)
            .with(fmt)
            .try_init()
            .is_ok()
        {
            let _ = FILTER.set(handle);
        }
    }
}

/// A text without secrets, for what is said beside the log.
pub fn masked(text: &str) -> String {
    static MASK: OnceLock<Mask> = OnceLock::new();
    let mask = MASK.get_or_init(|| Mask::of_env(std::env::vars()));
    mask.apply(text).into_owned()
}

/// What is logged now; `None` before anything is.
pub fn filter() -> Option<String> {
    let handle = FILTER.get()?;
    handle.with_current(ToString::to_string).ok()
}

/// Logs by this filter from now on; says what is wrong with one that cannot be read.
pub fn set_filter(text: &str) -> Result<(), String> {
    let wrong = |e: &dyn fmt::Display| {
        format!("{text:?}: {e}; say error, warn, info, debug, trace, or target=level,…")
    };
    let filter = EnvFilter::try_new(text).map_err(|e| wrong(&e))?;
    let handle = FILTER.get().ok_or("nothing is logged yet")?;
    handle.reload(filter).map_err(|e| wrong(&e))
}

/// Formats a line for each event.
struct Lines {
    is_json: bool,
    is_limited: bool,
    plain: format::Format,
    cell: String,
    role: String,
    limit: Limit,
    mask: Arc<Mask>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let mut left_out = 0;
        if self.is_limited {
            let of = said.0.get("task").map(Value::to_string).unwrap_or_default();
            let place = event.metadata().callsite();
            match self.limit.pass(&place, &of, Instant::now()) {
                Pass::No => {
                    metrics().log_lines_suppressed.inc();
                    return Ok(());
                }
                Pass::Yes(before) => left_out = before,
            }
        }
        if self.is_json {
            writeln!(writer, "{}", self.json(event, said, left_out))
        } else {
            self.plain.format_event(context, writer, event)
        }
    }
}

impl Lines {
    /// Before it is written as JSON: behind its escapes a secret is not known again.
    fn masked(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.mask.apply(&text).into_owned().into(),
            other => other,
        }
    }

    /// `time`, `level`, `message`, whose it is, then what the event says.
    fn json(&self, event: &Event<'_>, mut said: Said, left_out: u64) -> Value {
        let mut time = String::new();
        // A clock that cannot be read leaves an empty text.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let meta = event.metadata();
        let mut line = Map::new();
        line.insert("time".into(), time.into());
        line.insert("level".into(), meta.level().as_str().into());
        line.insert(
            "message".into(),
            self.masked(said.0.remove("message").unwrap_or_default()),
        );
        line.insert("cell".into(), self.cell.clone().into());
        line.insert("role".into(), self.role.clone().into());
        line.insert("target".into(), meta.target().into());
        if left_out > 0 {
            line.insert("left_out".into(), left_out.into());
        }
        for (name, value) in said.0 {
            // What an event says never stands for what every line says.
            let name = if line.contains_key(&name) {
                format!("event.{name}")
            } else {
                name
            };
            line.insert(name, self.masked(value));
        }
        Value::Object(line)
    }
}

/// What an event says.
#[derive(Default)]
struct Said(Map<String, Value>);

impl Said {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}
