//! Pairs of a runtime and a sandbox, and how many cases each passed.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::cases::Case;

/// Sandboxes, by the name a task asks for them.
pub(super) const SANDBOXES: [&str; 5] = ["none", "landlock", "bubblewrap", "podman", "docker"];

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Command,
    Claude,
    Codex,
    Acp,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Command, Self::Claude, Self::Codex, Self::Acp];
    pub(super) const MODELS: [Self; 3] = [Self::Claude, Self::Codex, Self::Acp];

    /// What a case runs; none where this runtime has nothing of the kind.
    pub(super) fn run(self, case: &Case, script: &str) -> Option<Value> {
        let (name, _) = case.of_model;
        let prompt = format!("please [[{name}]]");
        Some(match self {
            Self::Command => json!({"command": ["sh", "-c", case.of_command?.0]}),
            Self::Claude => json!({"claude": {"prompt": prompt}}),
            Self::Codex => json!({"codex": {"prompt": prompt}}),
            Self::Acp => json!({"acp": {
                "argv": [script, "acp"],
                "prompt": prompt,
                "allow_tools": name != "denied",
            }}),
        })
    }

    /// The version that the fake says it is.
    pub(super) fn version(self) -> Option<&'static str> {
        match self {
            Self::Command => None,
            Self::Claude => Some("9.9.1"),
            Self::Codex => Some("9.9.2"),
            Self::Acp => Some("1"),
        }
    }
}

/// A runtime in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) kind: Kind,
    pub(super) sandbox: &'static str,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{kind} in {}", self.sandbox)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Passed, and all.
    counts: BTreeMap<Pair, (usize, usize)>,
    left_out: BTreeMap<Pair, Vec<&'static str>>,
    skipped: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, pair: Pair, case: &Case, found: Result<(), String>) {
        let (passed, all) = self.counts.entry(pair).or_default();
        *all += 1;
        match found {
            Ok(()) => *passed += 1,
            Err(problem) => self
                .failures
                .push(format!("{pair}: {}: {problem}", case.name)),
        }
    }

    pub(super) fn leaves_out(&mut self, pair: Pair, case: &Case) {
        self.left_out.entry(pair).or_default().push(case.name);
    }

    pub(super) fn skips(&mut self, sandbox: &str, reason: &str) {
        self.skipped
            .push(format!("{sandbox}: cannot run here: {reason}"));
    }

    pub(super) fn assert_passed(&self) {
        assert!(!self.counts.is_empty(), "nothing was run: {self}");
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "conformance, cases passed:")?;
        for (pair, (passed, all)) in &self.counts {
            write!(f, "  {:<20} {passed} of {all}", pair.to_string())?;
            match self.left_out.get(pair) {
                Some(names) => writeln!(f, " (it has no {})", names.join(", "))?,
                None => writeln!(f)?,
            }
        }
        for line in self.skipped.iter().chain(&self.failures) {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
