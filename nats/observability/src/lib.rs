//! What an operator puts into Grafana and Prometheus, as data: dashboards, alert rules and the
//! tests of both. The files beside `src` are written from here; nobody edits them by hand.
//!
//! Reading order: [`metrics`] (what every role serves) → [`promql`] (what an expression names)
//! → [`limits`] (from where on it is bad) → [`alerts`] and [`dashboards`] (the data) → [`panel`]
//! (a panel as Grafana wants it) → [`cases`] and [`healthy`] (what promtool checks) →
//! [`files`] (all that is written).
//!
//! # Invariants
//! - An expression names no metric that [`metrics::METRICS`] lacks.
//! - A figure of the cell is never summed over processes: each serves the same one.
//! - A panel and the alert about the same thing turn red at the same value.
//! - Every alert has a case in which it fires and one in which it does not, and none fires in a
//!   cell that is well.

pub mod alerts;
pub mod cases;
pub mod dashboards;
pub mod files;
pub mod healthy;
pub mod limits;
pub mod metrics;
pub mod panel;
pub mod promql;

use std::collections::BTreeSet;

pub use alerts::Alert;
pub use dashboards::Dashboard;
pub use metrics::{METRICS, Metric};

/// Every expression there is, those of alerts and those of dashboards.
pub fn expressions() -> Vec<String> {
    let alerts = alerts::groups().into_iter().flat_map(|g| g.alerts);
    let dashboards = dashboards::all();
    let panels = dashboards.iter().flat_map(Dashboard::expressions);
    let variables = dashboards.iter().flat_map(Dashboard::variable_metrics);
    alerts
        .map(|a| a.expr)
        .chain(panels)
        .chain(variables)
        .collect()
}

/// The names of all metrics of ours that any expression uses, as they stand on a page of metrics:
/// of a histogram `…_bucket`, `…_count` or `…_sum`.
pub fn metrics_used() -> BTreeSet<String> {
    expressions()
        .iter()
        .flat_map(|e| promql::names(e))
        .filter(|name| !metrics::OF_PROMETHEUS.contains(&name.as_str()))
        .collect()
}
