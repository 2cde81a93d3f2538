//! Which runtimes a machine offers, and in which versions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use conductor_protocol::spec::Runtime as Kind;

use super::Host;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// The version of the Agent Client Protocol that is spoken; its agents are named by the tasks.
const ACP: &str = "1";

/// The runtimes that are there, with the version each found.
pub async fn probe(host: &Host) -> BTreeMap<Kind, String> {
    let own = || Some(env!("CARGO_PKG_VERSION").to_owned());
    let (claude, codex) = tokio::join!(
        version(&host.claude, &host.path),
        version(&host.codex, &host.path)
    );
    let found = [
        (Kind::Command, own()),
        (Kind::Noop, own()),
        (Kind::Acp, Some(ACP.to_owned())),
        (Kind::Claude, claude),
        (Kind::Codex, codex),
    ];
    let found = found.into_iter();
    found
        .filter_map(|(kind, version)| Some((kind, version?)))
        .collect()
}

/// What a program says its version is, if it is there.
async fn version(binary: &Path, path: &str) -> Option<String> {
    let mut command = tokio::process::Command::new(binary);
    command
        .arg("--version")
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent");
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.ok()?.ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| in_words(&said)).flatten()
}

/// The version among the words of a line such as `codex-cli 0.169.0`.
fn in_words(said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    let version = words.find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(
            in_words("2.1.316 (Claude Code)\n").as_deref(),
            Some("2.1.316")
        );
        assert_eq!(in_words("codex-cli 0.169.0\n").as_deref(), Some("0.169.0"));
        assert_eq!(in_words("no version here\n"), None);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_offered() {
        let host = Host {
            claude: "/nonexistent/claude".into(),
            codex: "/bin/false".into(),
            ..Host::from_env().unwrap()
        };
        let found = probe(&host).await;
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            [Kind::Command, Kind::Noop, Kind::Acp]
        );
    }
}
