//! What attempts run: programs, and models headless.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// What an attempt runs. Boxed, since every task that waits has one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunSpec {
    /// Any program.
    Command(Box<CommandSpec>),
    /// The Claude Code CLI, headless.
    Claude(Box<ClaudeSpec>),
    /// The Codex CLI, headless.
    Codex(Box<CodexSpec>),
    /// Any agent that speaks the Agent Client Protocol over its standard input and output.
    Acp(Box<AcpSpec>),
    /// Nothing: succeeds at once. Measures the system around it.
    Noop(NoopSpec),
}

impl RunSpec {
    /// The runtime an agent must offer.
    pub fn runtime(&self) -> Runtime {
        match self {
            Self::Command(_) => Runtime::Command,
            Self::Claude(_) => Runtime::Claude,
            Self::Codex(_) => Runtime::Codex,
            Self::Acp(_) => Runtime::Acp,
            Self::Noop(_) => Runtime::Noop,
        }
    }
}

/// A way to run an attempt, as agents announce it and tasks require it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Any program.
    Command,
    /// The Claude Code CLI.
    Claude,
    /// Nothing.
    Noop,
    /// The Codex CLI.
    Codex,
    /// Agents that speak the Agent Client Protocol.
    Acp,
}

impl Runtime {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Claude => "claude",
            Self::Noop => "noop",
            Self::Codex => "codex",
            Self::Acp => "acp",
        }
    }

    /// Whether its model can be told something while it runs.
    pub fn can_be_told(self) -> bool {
        matches!(self, Self::Claude | Self::Acp)
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A run without work.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NoopSpec {}

/// A program to run. People may write just the argument list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CommandSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment added to the agent's allow-listed one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Text given on standard input; absent means an empty input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Working directory; relative to the attempt's workspace, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl<'de> Deserialize<'de> for CommandSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            argv: Vec<String>,
            #[serde(default)]
            env: BTreeMap<String, String>,
            #[serde(default)]
            stdin: Option<String>,
            #[serde(default)]
            cwd: Option<String>,
        }
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = CommandSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of arguments or an object with argv")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CommandSpec, A::Error> {
                let mut argv = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    argv.push(arg);
                }
                Ok(CommandSpec {
                    argv,
                    ..CommandSpec::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CommandSpec, A::Error> {
                let f = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(CommandSpec {
                    argv: f.argv,
                    env: f.env,
                    stdin: f.stdin,
                    cwd: f.cwd,
                })
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<CommandSpec, E> {
                Err(E::custom(
                    "one text is not an argument list; for a shell line write [\"sh\",\"-c\",\"…\"]",
                ))
            }
        }
        d.deserialize_any(V)
    }
}

/// One headless run of the Claude Code CLI (agent-facts 2.1).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ClaudeSpec {
    /// What the model is asked; given on standard input, never in the arguments.
    pub prompt: String,
    /// Model name; absent means the CLI's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Most turns of the main loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// Most money in US dollars; the CLI checks it after each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<f64>,
    /// Session to resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Text appended to the system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_system_prompt: Option<String>,
    /// Permission mode; absent means `dontAsk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// Tools that run without being asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
    /// Tools removed, besides those that Conductor always removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disallowed_tools: Vec<String>,
    /// JSON schema of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<String>,
    /// Whether denied tools still allow success.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_denials: bool,
    /// Environment added to the agent's allow-listed one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; relative to the attempt's workspace, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// One headless run of the Codex CLI (agent-facts 2.3).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CodexSpec {
    /// What the model is asked; given on standard input, never in the arguments.
    pub prompt: String,
    /// Model name; absent means the CLI's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Thread to resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// JSON schema of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<String>,
    /// Environment added to the agent's allow-listed one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; relative to the attempt's workspace, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// One prompt to an agent that speaks the Agent Client Protocol, version 1 (agent-facts 2.4).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct AcpSpec {
    /// The agent and its arguments, such as `["gemini", "--experimental-acp"]`.
    pub argv: Vec<String>,
    /// What the model is asked.
    pub prompt: String,
    /// What is answered when the agent asks for permission, where its terms have no people asked:
    /// whether tools may run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_tools: bool,
    /// Session to load, where the agent can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Environment added to the agent's allow-listed one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; relative to the attempt's workspace, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// How the CLI decides about tools nobody named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// The CLI's default: reads run, writes are denied.
    Default,
    /// File edits run.
    AcceptEdits,
    /// Only `allowed_tools` run.
    DontAsk,
    /// No writes at all.
    Plan,
    /// Everything runs: for boxed-in agents alone.
    BypassPermissions,
}

impl PermissionMode {
    /// The value of `--permission-mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::DontAsk => "dontAsk",
            Self::Plan => "plan",
            Self::BypassPermissions => "bypassPermissions",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(b: &bool) -> bool {
    !*b
}
