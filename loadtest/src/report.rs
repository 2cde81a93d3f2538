//! Reports: parts that are written as text, as HTML, and as JSON to be read again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::html;
use crate::outcome::Outcome;
use crate::plot::Plot;
use crate::result::Origin;
use crate::table::table;

/// A part of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A table.
    Table {
        /// What it shows.
        title: String,
        /// Names of the columns.
        head: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// A plot; only in HTML.
    Plot(Plot),
    /// Commands, as a person would type them.
    Commands(Vec<String>),
}

impl Part {
    /// A table.
    pub(crate) fn table(title: &str, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self::Table {
            title: title.to_owned(),
            head: head.iter().map(|h| (*h).to_owned()).collect(),
            rows,
        }
    }

    /// As Markdown; nothing for a plot.
    pub(crate) fn markdown(&self) -> String {
        match self {
            Self::Heading(text) => format!("### {text}\n"),
            Self::Text(text) => format!("{text}\n"),
            Self::Table { title, head, rows } => {
                let title = if title.is_empty() {
                    String::new()
                } else {
                    format!("**{title}**\n\n")
                };
                format!("{title}{}\n", table(head, rows))
            }
            Self::Plot(_) => String::new(),
            Self::Commands(commands) => format!("```sh\n{}\n```\n", commands.join("\n")),
        }
    }
}

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What it is of.
    pub(crate) title: String,
    /// Of what and where.
    pub(crate) origin: Origin,
    /// How long it took to measure, in seconds.
    pub(crate) took_s: f64,
    /// Its parts.
    pub(crate) parts: Vec<Part>,
}

impl Report {
    /// Of what and where, for people.
    pub(crate) fn origin_text(&self) -> String {
        let (o, m) = (&self.origin, &self.origin.machine);
        format!(
            "{}, conductor {} (commit {}), nats-server {}; {}, {} cores, {:.1} GB, Linux {}; \
             measured in {:.0} s",
            o.date,
            o.version,
            o.commit.as_deref().unwrap_or("unknown"),
            o.server,
            m.cpu,
            m.cores,
            m.memory_mb as f64 / 1024.0,
            m.kernel,
            self.took_s
        )
    }

    /// As Markdown, a section of a larger file.
    pub(crate) fn markdown(&self) -> String {
        let head = format!("## {}\n\n{}\n", self.title, self.origin_text());
        let parts = self.parts.iter().map(Part::markdown);
        let parts: Vec<String> = parts.filter(|p| !p.is_empty()).collect();
        format!("{head}\n{}", parts.join("\n"))
    }

    /// Writes it as HTML.
    pub(crate) fn write_html(&self, path: &Path) -> Outcome<()> {
        Ok(std::fs::write(path, html::page(self))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back() {
        let report = Report {
            title: "x".to_owned(),
            origin: Origin::default(),
            took_s: 1.0,
            parts: vec![
                Part::Text("y".to_owned()),
                Part::table("t", &["a"], vec![vec!["1".to_owned()]]),
                Part::Plot(Plot::default()),
            ],
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let text = report.markdown();
        assert!(text.contains("**t**") && text.contains("| 1 |"), "{text}");
    }
}
