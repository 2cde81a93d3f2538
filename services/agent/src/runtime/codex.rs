//! The Codex CLI, headless: `codex exec --json` (agent-facts 2.3).

mod decode;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conductor_protocol::spec::CodexSpec;

use super::stream::JsonLines;
use super::{Job, Runtime, Signal, Step, Verdict, base_env, cwd};
use crate::input::Input;
use crate::output::Channel;
use crate::process::Launch;
use crate::reaper::Status;
use crate::tools;
use crate::usage::Meter;
use decode::Decoder;

/// Where its models are when the host names no other place.
const DEFAULT_URL: &str = "https://api.openai.com/v1";
/// The file that holds the schema of its answer, in the directory shared with the agent.
const SCHEMA: &str = "answer.schema.json";

pub(super) struct CodexRuntime {
    spec: CodexSpec,
    silence: Duration,
    lines: JsonLines,
    decoder: Decoder,
}

impl CodexRuntime {
    pub(super) fn new(spec: CodexSpec, silence: Duration) -> Self {
        let model = spec.model.clone();
        Self {
            spec,
            silence,
            lines: JsonLines::default(),
            decoder: Decoder::new(model),
        }
    }

    fn args(&self, job: &Job<'_>, resume: Option<&str>) -> Vec<String> {
        let mut args = vec!["exec".to_owned()];
        if resume.is_some() {
            args.push("resume".to_owned());
        }
        args.extend(["--json", "--skip-git-repo-check"].map(str::to_owned));
        let mut set = |name: &str, value: String| {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        };
        // Keys of ours are no business of what the model runs.
        set("shell_environment_policy.inherit", quoted("core"));
        if job.host.codex_env.contains_key("OPENAI_API_KEY") {
            let url = job.host.codex_env.get("OPENAI_BASE_URL");
            let url = url.map_or(DEFAULT_URL, String::as_str);
            set("model_provider", quoted("conductor"));
            set("model_providers.conductor", provider(url));
        }
        if let Some(tools) = job.tools {
            let server = format!("mcp_servers.{}", tools::NAME);
            set(&format!("{server}.url"), quoted(&tools.url));
            let token = quoted(tools::TOKEN_VARIABLE);
            set(&format!("{server}.bearer_token_env_var"), token);
            let patience = tools::PATIENCE.as_secs().to_string();
            set(&format!("{server}.tool_timeout_sec"), patience);
        }
        if job.is_boxed {
            // Its own sandbox cannot be made within another.
            args.push("--dangerously-bypass-approvals-and-sandbox".to_owned());
        } else {
            // As a setting, since `resume` has no flag for it.
            set("sandbox_mode", quoted("workspace-write"));
        }
        if let Some(model) = &self.spec.model {
            args.extend(["-m".to_owned(), model.clone()]);
        }
        if self.spec.json_schema.is_some() {
            let file = job.paths.run.join(SCHEMA).display().to_string();
            args.extend(["--output-schema".to_owned(), file]);
        }
        // What follows is never taken for an option; the prompt comes on standard input.
        args.push("--".to_owned());
        args.extend(resume.map(str::to_owned));
        args.push("-".to_owned());
        args
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The model service as the host has it; the key stays in the environment.
fn provider(url: &str) -> String {
    format!(
        "{{name=\"conductor\",base_url={},env_key=\"OPENAI_API_KEY\",wire_api=\"responses\",\
         request_max_retries=4,stream_max_retries=4,supports_websockets=false}}",
        quoted(url)
    )
}

impl Runtime for CodexRuntime {
    fn prepare(&mut self, job: &Job<'_>) -> Result<Launch, String> {
        let resume = self.spec.resume.as_deref().or(job.session);
        let args = self.args(job, resume);
        let meter = Meter::new(job.assigned.before.as_deref(), resume);
        self.decoder.begin(meter, resume);
        let mut env = base_env(job);
        env.extend(job.host.codex_env.clone());
        env.extend(self.spec.env.clone());
        // Of its own, so that it shares no sessions with others; within the home, which is kept.
        let home = job.paths.home.join(".codex");
        env.insert("CODEX_HOME".to_owned(), home.display().to_string());
        // It makes its helpers there, and not below the directory of temporary files: then every
        // command fails while the run ends well.
        if let Some(tmp) = env.get("TMPDIR").map(PathBuf::from)
            && home.starts_with(&tmp)
        {
            return Err(format!(
                "CODEX_HOME {} would be below TMPDIR {}, where Codex runs no command; name another TMPDIR, or another --data-dir",
                home.display(),
                tmp.display()
            ));
        }
        // Its home has to be there.
        let mut files: BTreeMap<PathBuf, Vec<u8>> =
            [(PathBuf::from("home/.codex/config.toml"), Vec::new())].into();
        if let Some(schema) = &self.spec.json_schema {
            let path = PathBuf::from("run").join(SCHEMA);
            files.insert(path, schema.clone().into_bytes());
        }
        Ok(Launch {
            program: job.host.codex.display().to_string(),
            args,
            env,
            stdin: Input::Closed(self.spec.prompt.clone().into_bytes()),
            cwd: cwd(job, self.spec.cwd.as_ref()),
            files,
        })
    }

    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal> {
        self.lines.read(channel, bytes, &mut self.decoder)
    }

    fn end(&mut self, channel: Channel) -> Vec<Signal> {
        self.lines.end(channel, &mut self.decoder)
    }

    fn ladder(&self) -> &'static [Step] {
        // Interrupted, it ends what it runs and says that its turn failed.
        const LADDER: &[Step] = &[
            Step::Interrupt(Duration::from_secs(5)),
            Step::Terminate(Duration::from_secs(5)),
        ];
        LADDER
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.silence)
    }

    fn judge(&mut self, status: &Status) -> Verdict {
        let last_words = self.lines.last_words();
        self.decoder.judge(status, last_words)
    }
}

#[cfg(test)]
mod tests;
