//! Where a real key comes from: a variable of the agent, a file, or a command that is run when
//! a key is needed. Files are read anew each time, so that a key can be changed without a restart.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::provider::Provider;
use crate::secret::Secret;

/// How long what a command said is used.
const COMMAND_KEPT: Duration = Duration::from_secs(300);
/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// Where a key comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The variable of this name had it.
    Variable(&'static str, Secret),
    /// A file.
    File(PathBuf),
    /// A line for the shell that prints it.
    Command(String),
}

/// How a request says whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// The header `x-api-key`.
    ApiKey,
    /// The header `authorization: Bearer`.
    Bearer,
}

/// A key in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub secret: Secret,
    /// Where it stands in a request.
    pub scheme: Scheme,
    /// The variable by which a client is given one of its kind.
    pub variable: &'static str,
}

impl Key {
    /// A key of a provider that came from `variable`, or whose kind its beginning tells.
    fn new(provider: Provider, secret: Secret, variable: Option<&'static str>) -> Self {
        let is_oauth = secret.expose().starts_with("sk-ant-oat");
        let variable = match (provider, variable) {
            (Provider::OpenAi, _) => "OPENAI_API_KEY",
            (Provider::Anthropic, Some(variable)) => variable,
            (Provider::Anthropic, None) if is_oauth => "CLAUDE_CODE_OAUTH_TOKEN",
            (Provider::Anthropic, None) => "ANTHROPIC_API_KEY",
        };
        let scheme = if variable == "ANTHROPIC_API_KEY" {
            Scheme::ApiKey
        } else {
            Scheme::Bearer
        };
        Self {
            secret,
            scheme,
            variable,
        }
    }
}

/// The keys of a provider; for all attempts of an agent.
#[derive(Clone, Debug)]
pub struct Keys {
    provider: Provider,
    source: KeySource,
    kept: Arc<Mutex<Option<(Key, Instant)>>>,
}

/// Variables that a key of Anthropic may stand in, best first.
const ANTHROPIC: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

impl Keys {
    /// Those of a provider, from the agent's environment; `None` where it has none.
    pub fn from_env(provider: Provider, var: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let (name, variables) = match provider {
            Provider::Anthropic => ("ANTHROPIC", ANTHROPIC.as_slice()),
            Provider::OpenAi => ("OPENAI", ["OPENAI_API_KEY"].as_slice()),
        };
        let own =
            |what: &str| var(&format!("CONDUCTOR_{name}_KEY_{what}")).filter(|v| !v.is_empty());
        let from_variable = || {
            let mut found = variables.iter();
            found.find_map(|v| Some(KeySource::Variable(v, Secret::new(&var(v)?)?)))
        };
        let source = own("COMMAND").map(KeySource::Command);
        let source = source.or_else(|| Some(KeySource::File(own("FILE")?.into())));
        Some(Self::new(provider, source.or_else(from_variable)?))
    }

    /// Those of a provider.
    pub fn new(provider: Provider, source: KeySource) -> Self {
        let kept = Arc::default();
        Self {
            provider,
            source,
            kept,
        }
    }

    /// The key, now.
    pub async fn get(&self) -> Result<Key, String> {
        let key = |secret: Option<Secret>, variable| {
            let secret = secret.ok_or_else(|| self.wrong("holds no key"))?;
            Ok(Key::new(self.provider, secret, variable))
        };
        match &self.source {
            KeySource::Variable(name, secret) => key(Some(secret.clone()), Some(*name)),
            KeySource::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|e| self.wrong(&format!("cannot be read: {e}")))?;
                key(Secret::new(&text), None)
            }
            KeySource::Command(line) => {
                // Held while it runs: those who wait need not run it once more.
                let mut kept = self.kept.lock().await;
                if let Some((key, until)) = &*kept
                    && *until > Instant::now()
                {
                    return Ok(key.clone());
                }
                let key = key(Secret::new(&self.run(line).await?), None)?;
                *kept = Some((key.clone(), Instant::now() + COMMAND_KEPT));
                Ok(key)
            }
        }
    }

    /// The provider did not take `refused`. Whether there may be another by now.
    pub async fn refused(&self, refused: &Key) -> bool {
        match &self.source {
            KeySource::Variable(..) => false,
            KeySource::File(_) => true,
            KeySource::Command(_) => {
                let mut kept = self.kept.lock().await;
                if kept.as_ref().is_some_and(|(key, _)| key == refused) {
                    *kept = None;
                }
                true
            }
        }
    }

    async fn run(&self, line: &str) -> Result<String, String> {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command.kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_TIME, command.output()).await;
        let output = output.map_err(|_| self.wrong("took more than 30 s"))?;
        let output = output.map_err(|e| self.wrong(&format!("does not run: {e}")))?;
        if !output.status.success() {
            return Err(self.wrong(&format!("failed: {}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is wrong with where the key comes from; never with what it said.
    fn wrong(&self, what: &str) -> String {
        let source = match &self.source {
            KeySource::Variable(name, _) => (*name).to_owned(),
            KeySource::File(path) => path.display().to_string(),
            KeySource::Command(_) => "the command for it".to_owned(),
        };
        format!(
            "the agent's key for {}: {source} {what}",
            self.provider.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn keys(provider: Provider, vars: &[(&str, &str)]) -> Option<Keys> {
        let vars: BTreeMap<String, String> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Keys::from_env(provider, |name| vars.get(name).cloned())
    }

    async fn key(vars: &[(&str, &str)]) -> (String, Scheme, &'static str) {
        let key = keys(Provider::Anthropic, vars)
            .unwrap()
            .get()
            .await
            .unwrap();
        (key.secret.expose().to_owned(), key.scheme, key.variable)
    }

    #[tokio::test]
    async fn a_key_comes_from_a_command_a_file_or_a_variable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "sk-file\n").unwrap();
        let file = file.display().to_string();
        let all = [
            ("CONDUCTOR_ANTHROPIC_KEY_COMMAND", "echo sk-ant-oat-x"),
            ("CONDUCTOR_ANTHROPIC_KEY_FILE", file.as_str()),
            ("ANTHROPIC_API_KEY", ""),
            ("ANTHROPIC_AUTH_TOKEN", "token"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "oauth"),
        ];
        let bearer = |key: &str, variable| (key.to_owned(), Scheme::Bearer, variable);
        assert_eq!(
            key(&all).await,
            bearer("sk-ant-oat-x", "CLAUDE_CODE_OAUTH_TOKEN")
        );
        assert_eq!(
            key(&all[1..]).await,
            ("sk-file".into(), Scheme::ApiKey, "ANTHROPIC_API_KEY")
        );
        assert_eq!(
            key(&all[2..]).await,
            bearer("token", "ANTHROPIC_AUTH_TOKEN")
        );
        assert_eq!(
            key(&all[4..]).await,
            bearer("oauth", "CLAUDE_CODE_OAUTH_TOKEN")
        );
        assert!(keys(Provider::Anthropic, &[("ANTHROPIC_API_KEY", " ")]).is_none());
        assert!(keys(Provider::OpenAi, &all).is_none());
    }

    #[tokio::test]
    async fn a_command_runs_again_when_its_key_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("n");
        let line = format!("echo x >> {0}; echo key-$(wc -l < {0})", count.display());
        let keys = Keys::new(Provider::OpenAi, KeySource::Command(line));
        let first = keys.get().await.unwrap();
        assert_eq!(keys.get().await.unwrap(), first);
        assert!(keys.refused(&first).await);
        let second = keys.get().await.unwrap();
        assert_eq!(second.secret.expose(), "key-2");
        keys.refused(&first).await;
        assert_eq!(
            keys.get().await.unwrap(),
            second,
            "what was refused is no longer in use"
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_key() {
        let failed = Keys::new(
            Provider::OpenAi,
            KeySource::Command("echo sk-secret; exit 3".into()),
        );
        let said = failed.get().await.unwrap_err();
        assert!(
            said.contains("failed") && !said.contains("sk-secret"),
            "{said}"
        );
        let missing = Keys::new(Provider::OpenAi, KeySource::File("/nonexistent/key".into()));
        assert!(
            missing
                .get()
                .await
                .unwrap_err()
                .contains("/nonexistent/key")
        );
    }
}
