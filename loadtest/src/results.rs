//! `RESULTS.md`: the sections as they were last measured, each kept as JSON beside it.

use std::path::{Path, PathBuf};

use crate::outcome::{Outcome, say};
use crate::report::{Part, Report};

/// The sections, in their order.
const SECTIONS: [&str; 3] = ["bench", "growth", "soak"];
const HEAD: &str = "# Results of the load test\n\n\
Written by `make bench`, `make bench-growth` and `make soak`; each replaces its own section. \
Ratios and latencies are of one machine and one run of the set: repeat them on yours.\n";

/// Where results are kept, seen from the root of the project.
pub(crate) fn default_dir() -> PathBuf {
    PathBuf::from("loadtest")
}

/// Writes a report as HTML and its figures as JSON; by default beside this program.
pub(crate) fn write(
    dir: Option<&Path>,
    name: &str,
    report: &Report,
    figures: &impl serde::Serialize,
) -> Outcome<()> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => std::env::current_exe()?.with_file_name("bench"),
    };
    std::fs::create_dir_all(&dir)?;
    let json = serde_json::to_string_pretty(figures)?;
    std::fs::write(dir.join(format!("{name}.json")), json)?;
    let html = dir.join(format!("{name}.html"));
    report.write_html(&html)?;
    say(&format!("report: {}", html.display()));
    Ok(())
}

/// Keeps a section, and writes all of them.
pub(crate) fn keep(dir: &Path, name: &str, report: &Report) -> Outcome<()> {
    let kept = dir.join("results");
    std::fs::create_dir_all(&kept)?;
    // Plots have thousands of points and stand in the HTML.
    let is_short = |part: &&Part| !matches!(part, Part::Plot(_));
    let report = Report {
        parts: report.parts.iter().filter(is_short).cloned().collect(),
        ..report.clone()
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(kept.join(format!("{name}.json")), json)?;
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        let path = kept.join(format!("{section}.json"));
        if let Ok(bytes) = std::fs::read(path) {
            let report: Report = serde_json::from_slice(&bytes)?;
            text += &format!("\n{}", report.markdown());
        }
    }
    std::fs::write(dir.join("RESULTS.md"), text)?;
    say(&format!("results: {}", dir.join("RESULTS.md").display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Origin;

    #[test]
    fn a_section_that_is_not_measured_again_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let report = |title: &str| Report {
            title: title.to_owned(),
            origin: Origin::default(),
            took_s: 0.0,
            parts: Vec::new(),
        };
        keep(dir.path(), "soak", &report("old soak")).unwrap();
        keep(dir.path(), "bench", &report("old bench")).unwrap();
        keep(dir.path(), "bench", &report("new bench")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("RESULTS.md")).unwrap();
        let at = |title: &str| text.find(title);
        assert!(at("new bench") < at("old soak"), "{text}");
        assert!(at("new bench").is_some() && at("old bench").is_none());
    }
}
