//! Alert rules.

mod agents;
mod leaders;
mod log;
mod processes;
mod tasks;
mod void;

use serde::Serialize;

/// How soon somebody has to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// Now: the cell stands still, or somebody writes what is not theirs.
    Critical,
    /// Today.
    Warning,
    /// When you pass by.
    Info,
}

impl Severity {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What whoever is woken up reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Runbook {
    /// What it means.
    pub means: &'static str,
    /// What to look at.
    pub look: &'static str,
    /// What to do.
    pub act: &'static str,
}

/// Series as promtool takes them, and a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Story {
    /// Series, each with its values, one every 30 seconds.
    pub series: &'static [&'static str],
    /// When it is looked at.
    pub at: &'static str,
}

/// An alert.
#[derive(Clone, PartialEq, Debug)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// How soon somebody has to look.
    pub severity: Severity,
    /// When it is so.
    pub expr: String,
    /// For how long it has to be so: longer than what heals by itself.
    pub lasts: &'static str,
    /// One line.
    pub summary: &'static str,
    /// With figures.
    pub description: &'static str,
    /// What to do about it.
    pub runbook: Runbook,
    /// It fires here,
    pub fires: Story,
    /// with these labels,
    pub labels: &'static [(&'static str, &'static str)],
    /// and the value, as the description writes it;
    pub value: &'static str,
    /// and not here.
    pub quiet: Story,
}

/// Alerts about one thing.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// In the order in which they are read.
    pub alerts: Vec<Alert>,
}

/// All alerts.
pub fn groups() -> Vec<Group> {
    vec![
        leaders::group(),
        tasks::group(),
        agents::group(),
        log::group(),
        void::group(),
        processes::group(),
    ]
}

/// A file of rules, as Prometheus reads it.
#[derive(Serialize)]
struct RuleFile {
    groups: Vec<RuleGroup>,
}

#[derive(Serialize)]
struct RuleGroup {
    name: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    alert: &'static str,
    expr: String,
    r#for: &'static str,
    labels: RuleLabels,
    annotations: Annotations,
}

#[derive(Serialize)]
struct RuleLabels {
    severity: &'static str,
}

/// What an alert says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Annotations {
    /// One line.
    pub summary: String,
    /// With figures.
    pub description: String,
    /// What to do.
    pub runbook: String,
}

impl Alert {
    /// What it says; templates are not filled in.
    pub fn annotations(&self) -> Annotations {
        let Runbook { means, look, act } = self.runbook;
        Annotations {
            summary: self.summary.to_owned(),
            description: self.description.to_owned(),
            runbook: format!("Means: {means}\nLook: {look}\nDo: {act}"),
        }
    }

    fn rule(self) -> Rule {
        Rule {
            alert: self.name,
            annotations: self.annotations(),
            expr: self.expr,
            r#for: self.lasts,
            labels: RuleLabels {
                severity: self.severity.as_str(),
            },
        }
    }
}

/// The rules as Prometheus reads them.
pub fn to_yaml() -> Result<String, serde_yaml_ng::Error> {
    let group = |g: Group| RuleGroup {
        name: g.name,
        rules: g.alerts.into_iter().map(Alert::rule).collect(),
    };
    serde_yaml_ng::to_string(&RuleFile {
        groups: groups().into_iter().map(group).collect(),
    })
}
