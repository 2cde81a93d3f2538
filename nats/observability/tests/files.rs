//! The files are what is written from the data, and the data are sound. Whether Prometheus
//! understands them, `make observability-check` says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use conductor_observability::metrics::{self, Kind, OF_PROMETHEUS, Scope};
use conductor_observability::{
    METRICS, alerts, dashboards, expressions, files, healthy, metrics_used, promql,
};
use expect_test::expect_file;
use serde_json::Value;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn the_files_are_what_is_written_from_the_data() {
    let files = files::all().unwrap();
    for (name, text) in &files {
        expect_file![here(name)].assert_eq(text);
    }
    for entry in std::fs::read_dir(here("dashboards")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            files.contains_key(&format!("dashboards/{name}")),
            "dashboards/{name} is written by nobody"
        );
    }
}

#[test]
fn expressions_name_known_metrics_only() {
    let known: BTreeSet<String> = METRICS.iter().flat_map(metrics::Metric::series).collect();
    let unknown: Vec<String> = metrics_used().difference(&known).cloned().collect();
    none("no role serves these", &unknown);
    assert!(metrics_used().len() > 40, "{:?}", metrics_used());
}

#[test]
fn every_metric_is_shown_or_watched() {
    let used = metrics_used();
    let unused: Vec<String> = METRICS
        .iter()
        .filter(|m| !m.series().iter().any(|s| used.contains(s)))
        .map(|m| m.name.to_owned())
        .collect();
    none("served, and neither shown nor watched", &unused);
}

/// Each process with a replica serves them: a sum would count everything once for each.
#[test]
fn figures_of_the_cell_are_never_summed_over_processes() {
    let mut offences = Vec::new();
    for expr in expressions() {
        for found in promql::uses(&expr) {
            let of_cell = metrics::of_series(&found.name).is_some_and(|m| m.scope == Scope::Cell);
            if of_cell && expr != found.name && found.aggregation.as_deref() != Some("max") {
                offences.push(format!("{} in {expr}", found.name));
            }
        }
    }
    none("not within max by (…)", &offences);
}

/// `rate` of a gauge and `deriv` of a counter give figures that look right and are not.
#[test]
fn counters_are_named_as_such() {
    for metric in METRICS {
        let is_named_so = metric.name.ends_with("_total");
        assert_eq!(metric.kind == Kind::Counter, is_named_so, "{}", metric.name);
    }
}

#[test]
fn a_cell_that_is_well_serves_every_metric() {
    let served: BTreeSet<String> = healthy::series()
        .into_iter()
        .map(|(s, _)| s.split('{').next().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = METRICS.iter().flat_map(metrics::Metric::series).collect();
    assert_eq!(served, known);
}

#[test]
fn alerts_say_all_that_is_needed() {
    let alerts: Vec<_> = alerts::groups()
        .into_iter()
        .flat_map(|g| g.alerts)
        .collect();
    let names: BTreeSet<&str> = alerts.iter().map(|a| a.name).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts of one name");
    for alert in &alerts {
        let name = alert.name;
        assert!(name.starts_with("Conductor"), "{name}");
        let words = [alert.runbook.means, alert.runbook.look, alert.runbook.act];
        assert!(
            words.iter().all(|w| w.ends_with(['.', '?'])),
            "{name}: {words:?}"
        );
        assert!(!alert.summary.ends_with('.'), "{name}: {}", alert.summary);
        assert!(alert.description.ends_with('.'), "{name}");
        // Whoever reads it in a mail sees nothing but this.
        if alert.labels.iter().any(|(label, _)| *label == "cell") {
            assert!(alert.summary.contains("$labels.cell"), "{name}");
        }
        for other in words.join(" ").split(|c: char| !c.is_alphanumeric()) {
            let is_alert = other.starts_with("Conductor") && other.len() > "Conductor".len();
            assert!(!is_alert || names.contains(other), "{name} names {other}");
        }
    }
}

/// What `conductor … --help` printed when the end-to-end tests last ran, by command.
fn help() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(here("../../tests/e2e/cli-help.txt")).unwrap();
    text.split("$ ")
        .filter_map(|part| part.split_once(" --help\n"))
        .map(|(command, help)| (command.to_owned(), help.to_owned()))
        .collect()
}

/// The texts that people read, with the place they stand at.
fn texts() -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for alert in alerts::groups().into_iter().flat_map(|g| g.alerts) {
        texts.push((alert.name.to_owned(), alert.annotations().runbook));
    }
    for dashboard in dashboards::all() {
        for panel in dashboard.panels {
            let place = format!("{}, {}", dashboard.title, panel.title);
            texts.push((place, panel.description.to_owned()));
        }
    }
    texts.push((
        "README.md".to_owned(),
        std::fs::read_to_string(here("README.md")).unwrap(),
    ));
    texts
}

#[test]
fn commands_that_are_named_exist() {
    let help = help();
    let mut offences = Vec::new();
    let mut seen = 0;
    for (place, text) in texts() {
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some(command) = quoted.strip_prefix("conductor ") else {
                continue;
            };
            seen += 1;
            let words: Vec<&str> = command.split_whitespace().collect();
            if let Err(what) = exists(&help, &words) {
                offences.push(format!("{place}: `{quoted}`: {what}"));
            }
        }
    }
    assert!(seen > 50, "only {seen} commands found");
    none("no such command", &offences);
}

fn exists(help: &BTreeMap<String, String>, words: &[&str]) -> Result<(), String> {
    let everywhere = &help["conductor"];
    let lists = |text: &str, word: &str| {
        let mut lines = text.lines().map(str::trim_start);
        lines.any(|l| l.starts_with(&format!("{word} ")))
    };
    let first = words[0];
    if !lists(everywhere, first) {
        return Err("no such command".to_owned());
    }
    let mut page = help.get(&format!("conductor {first}"));
    if let Some(second) = words.get(1).filter(|w| !w.starts_with(['-', '<', '\''])) {
        // Not every command has a page of its own there.
        let own = help.get(&format!("conductor {first} {second}"));
        if own.is_none() && !page.is_some_and(|text| lists(text, second)) {
            return Err(format!("`{first}` knows no {second}"));
        }
        page = own;
    }
    let has = |text: &str, flag: &str| {
        let mut words = text.split(|c: char| c.is_whitespace() || c == ',');
        words.any(|w| w == flag)
    };
    for flag in words.iter().filter(|w| w.starts_with('-')) {
        if page.is_some_and(|text| !has(text, flag) && !has(everywhere, flag)) {
            return Err(format!("`{first}` has no {flag}"));
        }
    }
    Ok(())
}

#[test]
fn dashboards_are_what_grafana_expects() {
    for dashboard in dashboards::all() {
        let json = dashboard.to_json();
        let uid = json["uid"].as_str().unwrap();
        assert!(uid.starts_with("conductor-") && uid.len() <= 40, "{uid}");
        let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
        for panel in json["panels"].as_array().unwrap() {
            let place = &panel["gridPos"];
            let at = |field: &str| place[field].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{uid}: {}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{uid}: {} lies on another",
                        panel["title"]
                    );
                }
            }
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                // Another cell's figures beside this one's would be read as its own.
                let selectors = expr.matches('{').count();
                assert_eq!(expr.matches("$cell").count(), selectors, "{uid}: {expr}");
            }
        }
    }
}

#[test]
fn tasks_lead_to_their_traces() {
    let overview = dashboards::all().remove(0).to_json();
    let panel = overview["panels"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["title"] == "From accepted to ended")
        .unwrap();
    let has_exemplars = |t: &&Value| t["exemplar"] == true;
    let targets = panel["targets"].as_array().unwrap();
    assert_eq!(targets.iter().filter(has_exemplars).count(), 1);
    let link = panel["fieldConfig"]["defaults"]["links"][0]["url"]
        .as_str()
        .unwrap();
    assert!(link.starts_with("${jaeger}/"), "{link}");
}

#[test]
fn what_prometheus_makes_is_none_of_ours() {
    assert!(
        OF_PROMETHEUS
            .iter()
            .all(|name| metrics::of_series(name).is_none())
    );
}

/// Hand-written files: they parse, and their parts know each other.
#[test]
fn the_collector_uses_what_it_defines() {
    let text = std::fs::read_to_string(here("otel-collector.yaml")).unwrap();
    let config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    for (name, pipeline) in config["service"]["pipelines"].as_mapping().unwrap() {
        for kind in ["receivers", "processors", "exporters"] {
            for part in pipeline[kind].as_sequence().unwrap() {
                assert!(!config[kind][part].is_null(), "{name:?}: {kind} {part:?}");
            }
        }
        // First, so that what has no room is refused before it costs anything.
        assert_eq!(pipeline["processors"][0], "memory_limiter", "{name:?}");
    }
    for extension in config["service"]["extensions"].as_sequence().unwrap() {
        assert!(
            config["extensions"].get(extension).is_some(),
            "{extension:?}"
        );
    }
}
