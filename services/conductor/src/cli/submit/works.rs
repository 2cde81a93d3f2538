//! What a task works on and leaves, as flags say.

use std::path::Path;

use conductor_protocol::spec::CommandSpec;
use conductor_protocol::submission::Submission;
use conductor_protocol::terms::{GitSpec, WorkspaceSpec};

/// What a task works on and leaves.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct WorksArgs {
    /// A git repository that it works on: URL or path
    #[arg(long, value_name = "URL")]
    git: Option<String>,
    /// Branch, tag or commit of it [default: its HEAD]
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    reference: Option<String>,
    /// Branch that its commits are pushed to after a success
    #[arg(long, value_name = "BRANCH", requires = "git")]
    push: Option<String>,
    /// A workspace of this name, which later tasks of the namespace go on in
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Shell line that runs before it
    #[arg(long, value_name = "LINE")]
    setup: Vec<String>,
    /// Shell line that must succeed after it
    #[arg(long = "check", value_name = "LINE")]
    checks: Vec<String>,
    /// File to keep, relative to the workspace; `*` stands for anything in a name
    #[arg(long = "artifact", value_name = "PATH")]
    artifacts: Vec<String>,
}

impl WorksArgs {
    /// Writes them into a submission.
    pub(super) fn put(&self, submission: &mut Submission) {
        let git = self.git.as_ref().map(|url| GitSpec {
            url: absolute(url),
            reference: self.reference.clone(),
            push: self.push.clone(),
        });
        let workspace = WorkspaceSpec {
            name: self.workspace.clone(),
            git,
        };
        submission.workspace = (workspace != WorkspaceSpec::default()).then_some(workspace);
        submission.setup = self.setup.iter().map(|line| shell(line)).collect();
        submission.checks = self.checks.iter().map(|line| shell(line)).collect();
        submission.artifacts.clone_from(&self.artifacts);
    }
}

/// A path of this machine means the same from everywhere.
fn absolute(url: &str) -> String {
    let is_relative = url == "." || url.starts_with("./") || url.starts_with("../");
    let path = is_relative.then(|| std::path::absolute(Path::new(url)).ok());
    let path = path
        .flatten()
        .and_then(|p| p.into_os_string().into_string().ok());
    path.unwrap_or_else(|| url.to_owned())
}

fn shell(line: &str) -> CommandSpec {
    CommandSpec {
        argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
        ..CommandSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_a_task_file_would() {
        let args = WorksArgs {
            git: Some("https://h/r".into()),
            push: Some("work".into()),
            checks: vec!["make test".into()],
            ..WorksArgs::default()
        };
        let mut submission = Submission::default();
        args.put(&mut submission);
        let file = serde_json::json!({
            "workspace": {"git": {"url": "https://h/r", "push": "work"}},
            "checks": [["sh", "-c", "make test"]],
        });
        assert_eq!(submission, serde_json::from_value(file).unwrap());
        let mut nothing = Submission::default();
        WorksArgs::default().put(&mut nothing);
        assert_eq!(nothing, Submission::default());
    }

    #[test]
    fn a_path_from_here_is_one_from_everywhere() {
        assert!(absolute("./r").starts_with('/'));
        assert_eq!(absolute("/r"), "/r");
        assert_eq!(absolute("git@h:r"), "git@h:r");
    }
}
