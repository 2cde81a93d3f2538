//! What promtool checks: each alert fires where it should and nowhere else, and each panel has
//! something to show.

use serde::Serialize;

use crate::alerts::{self, Alert};
use crate::dashboards::{self, Dashboard};
use crate::healthy;

/// How far apart values are, and how often rules are looked at.
const INTERVAL: &str = "30s";
/// When the cell that is well is looked at: soon after Prometheus began to, and later.
const LOOKS: [&str; 3] = ["10m", "50m", LATE];
const LATE: &str = "3h10m";

#[derive(Serialize)]
struct File {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rule_files: Vec<&'static str>,
    evaluation_interval: &'static str,
    tests: Vec<Scene>,
}

#[derive(Serialize)]
struct Scene {
    name: String,
    interval: &'static str,
    input_series: Vec<Series>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alert_rule_test: Vec<AlertTest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Serialize)]
struct Series {
    series: String,
    values: String,
}

#[derive(Serialize)]
struct AlertTest {
    eval_time: &'static str,
    alertname: &'static str,
    exp_alerts: Vec<Expected>,
}

#[derive(Serialize)]
struct Expected {
    exp_labels: Labels,
    exp_annotations: alerts::Annotations,
}

/// In the order in which they are given.
type Labels = serde_yaml_ng::Mapping;

#[derive(Serialize)]
struct ExprTest {
    expr: String,
    eval_time: &'static str,
    exp_samples: Vec<Sample>,
}

#[derive(Serialize)]
struct Sample {
    labels: &'static str,
    value: u32,
}

/// The tests of the rules.
pub fn of_rules() -> Result<String, serde_yaml_ng::Error> {
    let alerts: Vec<Alert> = alerts::groups()
        .into_iter()
        .flat_map(|g| g.alerts)
        .collect();
    let mut tests = vec![well(&alerts)];
    for alert in &alerts {
        tests.push(fires(alert));
        tests.push(quiet(alert));
    }
    serde_yaml_ng::to_string(&File {
        rule_files: vec!["rules.yaml"],
        evaluation_interval: INTERVAL,
        tests,
    })
}

/// The tests of the dashboards: every expression is understood, and finds something in a cell
/// that is well.
pub fn of_dashboards() -> Result<String, serde_yaml_ng::Error> {
    let mut input_series = all_well();
    input_series.push(Series {
        series: "ALERTS{alertname=\"ConductorDeadLetters\",alertstate=\"firing\",cell=\"local\",\
                 severity=\"warning\"}"
            .to_owned(),
        values: "1+0x400".to_owned(),
    });
    let all = dashboards::all();
    let expressions = all.iter().flat_map(Dashboard::expressions);
    let scene = Scene {
        name: "a cell that is well".to_owned(),
        interval: INTERVAL,
        input_series,
        alert_rule_test: Vec::new(),
        promql_expr_test: expressions.map(|e| shows_something(&e)).collect(),
    };
    serde_yaml_ng::to_string(&File {
        rule_files: Vec::new(),
        evaluation_interval: INTERVAL,
        tests: vec![scene],
    })
}

fn shows_something(expr: &str) -> ExprTest {
    let filled = expr
        .replace("$cell", "local")
        .replace("$__rate_interval", "2m");
    ExprTest {
        // No comparison holds for what is not a number.
        expr: format!("count(({filled}) > -Inf) > bool 0"),
        eval_time: LATE,
        exp_samples: vec![Sample {
            labels: "{}",
            value: 1,
        }],
    }
}

fn all_well() -> Vec<Series> {
    let one = |(series, values)| Series { series, values };
    healthy::series().into_iter().map(one).collect()
}

fn well(alerts: &[Alert]) -> Scene {
    let silent = |alert: &Alert| {
        let name = alert.name;
        LOOKS.map(|eval_time| AlertTest {
            eval_time,
            alertname: name,
            exp_alerts: Vec::new(),
        })
    };
    Scene {
        name: "a cell that is well".to_owned(),
        interval: INTERVAL,
        input_series: all_well(),
        alert_rule_test: alerts.iter().flat_map(silent).collect(),
        promql_expr_test: Vec::new(),
    }
}

fn fires(alert: &Alert) -> Scene {
    let mut exp_labels = Labels::new();
    for (name, value) in alert.labels {
        exp_labels.insert((*name).into(), (*value).into());
    }
    exp_labels.insert("severity".into(), alert.severity.as_str().into());
    let said = alert.annotations();
    let exp_annotations = alerts::Annotations {
        summary: filled(alert, &said.summary),
        description: filled(alert, &said.description),
        runbook: said.runbook,
    };
    let expected = Expected {
        exp_labels,
        exp_annotations,
    };
    story(alert, "fires", alert.fires, vec![expected])
}

fn quiet(alert: &Alert) -> Scene {
    story(alert, "does not fire", alert.quiet, Vec::new())
}

fn story(alert: &Alert, what: &str, story: alerts::Story, exp_alerts: Vec<Expected>) -> Scene {
    let one = |line: &&str| {
        // A label may hold a space, values begin after the last brace.
        let (series, values) = line
            .split_once("} ")
            .map_or(((*line).to_owned(), ""), |(s, v)| (format!("{s}}}"), v));
        Series {
            series,
            values: values.to_owned(),
        }
    };
    Scene {
        name: format!("{} {what}", alert.name),
        interval: INTERVAL,
        input_series: story.series.iter().map(one).collect(),
        alert_rule_test: vec![AlertTest {
            eval_time: story.at,
            alertname: alert.name,
            exp_alerts,
        }],
        promql_expr_test: Vec::new(),
    }
}

/// A template as Prometheus fills it in, with the value as the alert's author expects it.
fn filled(alert: &Alert, template: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (inside, others) = after.split_once("}}").unwrap_or((after, ""));
        let inside = inside.trim();
        let label = inside.strip_prefix("$labels.").unwrap_or_default();
        let value = alert.labels.iter().find(|(name, _)| *name == label);
        text.push_str(value.map_or(alert.value, |(_, value)| value));
        rest = others;
    }
    text + rest
}
