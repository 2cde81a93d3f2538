//! Dashboards. The first says whether the system is well; the others, why not.

mod agents;
mod log;
mod nats;
mod overview;
mod queues;

use serde_json::{Value, json};

use crate::panel::{Panel, Place, datasource};

/// Dashboards of this schema are read by Grafana 11 and 12; a later one changes it by itself.
const SCHEMA: u32 = 41;
/// By this tag each finds the others.
const TAG: &str = "conductor";
/// Where the cells are known from: every process serves it.
const CELLS: &str = "conductor_build_info";

/// A dashboard.
#[derive(Clone, PartialEq, Debug)]
pub struct Dashboard {
    /// Part of its address, and the name of its file; links lead there, so it does not change.
    pub slug: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// In reading order.
    pub panels: Vec<Panel>,
}

/// All dashboards.
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        queues::dashboard(),
        agents::dashboard(),
        log::dashboard(),
        nats::dashboard(),
    ]
}

impl Dashboard {
    /// Its identity within Grafana.
    pub fn uid(&self) -> String {
        format!("conductor-{}", self.slug)
    }

    /// The expressions of its panels.
    pub fn expressions(&self) -> impl Iterator<Item = String> {
        let queries = self.panels.iter().flat_map(|p| &p.queries);
        queries.map(|q| q.expr.clone())
    }

    /// The metrics that its variables are read from.
    pub fn variable_metrics(&self) -> impl Iterator<Item = String> {
        [CELLS.to_owned()].into_iter()
    }

    /// The dashboard as Grafana reads it.
    pub fn to_json(&self) -> Value {
        let mut place = Place::default();
        let panels: Vec<Value> = (1..)
            .zip(&self.panels)
            .map(|(id, panel)| panel.to_json(id, &place.next(panel)))
            .collect();
        json!({
            "uid": self.uid(),
            "title": format!("Conductor / {}", self.title),
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "timepicker": {},
            "annotations": {"list": []},
            "links": [{
                "type": "dashboards",
                "title": "Conductor",
                "tooltip": "The other dashboards, for the same cell and time",
                "icon": "external link",
                "tags": [TAG],
                "asDropdown": false,
                "includeVars": true,
                "keepTime": true,
                "targetBlank": false,
            }],
            "templating": {"list": variables()},
            "panels": panels,
        })
    }
}

fn variables() -> Value {
    let jaeger = "http://localhost:16686";
    json!([
        {
            "type": "datasource",
            "name": "DS_PROMETHEUS",
            "label": "Prometheus",
            "query": "prometheus",
            "options": [],
            "refresh": 1,
            "regex": "",
            "multi": false,
            "includeAll": false,
            "hide": 0,
            "skipUrlSync": false,
        },
        {
            "type": "query",
            "name": "cell",
            "label": "Cell",
            "datasource": datasource(),
            "query": {
                "qryType": 1,
                "query": format!("label_values({CELLS}, cell)"),
                "refId": "cells",
            },
            "options": [],
            // Cells come and go while somebody looks.
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "multi": false,
            "includeAll": false,
            "hide": 0,
            "skipUrlSync": false,
        },
        {
            "type": "textbox",
            "name": "jaeger",
            "label": "Jaeger",
            "description": "Where traces are looked at: links of panels lead there",
            "query": jaeger,
            "current": {"selected": true, "text": jaeger, "value": jaeger},
            "options": [{"selected": true, "text": jaeger, "value": jaeger}],
            "hide": 0,
            "skipUrlSync": false,
        },
    ])
}

/// A quantile of a histogram.
fn quantile(q: f64, metric: &str, by: &str, selector: &str) -> String {
    let by = if by.is_empty() {
        "le".to_owned()
    } else {
        format!("{by}, le")
    };
    format!(
        "histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{cell=\"$cell\"{selector}}}[$__rate_interval])))"
    )
}

/// Traces of tasks that took as long as what was clicked at, or longer. Jaeger counts
/// microseconds.
const SLOW_TASKS: &str = "${jaeger}/search?service=conductor\
     &start=${__from}000&end=${__to}000&minDuration=${__value.numeric}s";
