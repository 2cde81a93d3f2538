//! What attempts are boxed in by: kinds, levels, and what each promises.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::human::ByteSize;
use crate::words::words;

words! {
    /// What boxes an attempt in, weakest first.
    SandboxKind("sandbox") {
        /// Nothing but directories and an environment of its own.
        None = "none",
        /// Landlock rules of the kernel: files, and TCP where the kernel knows that.
        Landlock = "landlock",
        /// bubblewrap: namespaces of its own, and a file tree of what it needs.
        Bubblewrap = "bubblewrap",
        /// A container by podman.
        Podman = "podman",
        /// A container by docker.
        Docker = "docker",
        /// A pod.
        Kubernetes = "kubernetes",
    }

    /// How much isolation is asked for: a set of [`Guarantee`]s.
    Level("level") {
        /// Files outside of its own directories cannot be written, and nothing of it is left behind.
        Minimal = "minimal",
        /// Also: it sees no other file, process, environment or network.
        Moderate = "moderate",
        /// Also: memory and processes are limited by the kernel, and system calls are filtered or
        /// the file tree is an image.
        Strict = "strict",
    }

    /// How far a network goes, each further than the one before.
    Reach("reach of a network") {
        /// Nowhere.
        None = "none",
        /// To hosts by name, over the agent's proxy.
        Hosts = "hosts",
        /// To whatever the agent can reach.
        Full = "full",
    }

    /// One thing a sandbox can promise.
    Guarantee("guarantee") {
        /// Nothing of the attempt runs after its end.
        NothingLeft = "nothing_left",
        /// Nothing outside its own directories can be written.
        FilesReadOnly = "files_read_only",
        /// Nothing outside its own directories and the system's programs can be read.
        FilesHidden = "files_hidden",
        /// No environment but its own can be read.
        EnvironmentHidden = "environment_hidden",
        /// No process but its own can be seen or signalled.
        ProcessesHidden = "processes_hidden",
        /// No network, but what it is allowed through the agent.
        NetworkClosed = "network_closed",
        /// The kernel limits the memory of all its processes together.
        MemoryLimited = "memory_limited",
        /// The kernel limits how many processes it has.
        ProcessesLimited = "processes_limited",
        /// Dangerous system calls are refused, or the file tree is an image of its own.
        CallsFiltered = "calls_filtered",
    }
}

impl Level {
    /// What the level promises. A sandbox that gives all of them gives the level.
    pub fn guarantees(self) -> &'static [Guarantee] {
        use Guarantee::{
            CallsFiltered, EnvironmentHidden, FilesHidden, FilesReadOnly, MemoryLimited,
            NetworkClosed, NothingLeft, ProcessesHidden, ProcessesLimited,
        };
        match self {
            Self::Minimal => &[NothingLeft, FilesReadOnly],
            Self::Moderate => &[
                NothingLeft,
                FilesReadOnly,
                FilesHidden,
                EnvironmentHidden,
                ProcessesHidden,
                NetworkClosed,
            ],
            Self::Strict => &[
                NothingLeft,
                FilesReadOnly,
                FilesHidden,
                EnvironmentHidden,
                ProcessesHidden,
                NetworkClosed,
                MemoryLimited,
                ProcessesLimited,
                CallsFiltered,
            ],
        }
    }
}

/// What a task asks of its sandbox. People may write just a level or a kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SandboxSpec {
    /// Which one; absent means the agent's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<SandboxKind>,
    /// What it must promise; an agent that cannot give it refuses the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What can be reached from inside.
    #[serde(skip_serializing_if = "Network::is_none")]
    pub network: Network,
    /// Memory of all its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Thousandths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Largest file it may write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// What all files in its directories may take, with those it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Image, for containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct SandboxFields {
    kind: Option<SandboxKind>,
    level: Option<Level>,
    network: Network,
    memory: Option<ByteSize>,
    cpu_millis: Option<u32>,
    processes: Option<u32>,
    file_size: Option<ByteSize>,
    disk: Option<ByteSize>,
    image: Option<String>,
}

impl<'de> Deserialize<'de> for SandboxSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = SandboxSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a level, a kind, or an object of what the sandbox shall be")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<SandboxSpec, E> {
                let word = || StrDeserializer::<E>::new(s);
                if let Ok(level) = Level::deserialize(word()) {
                    let level = Some(level);
                    return Ok(SandboxSpec {
                        level,
                        ..SandboxSpec::default()
                    });
                }
                let kind = SandboxKind::deserialize(word()).map_err(|_| {
                    E::custom(format!(
                        "{s:?} is neither a level (minimal, moderate, strict) nor a kind of sandbox"
                    ))
                })?;
                let kind = Some(kind);
                Ok(SandboxSpec {
                    kind,
                    ..SandboxSpec::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SandboxSpec, A::Error> {
                let f = SandboxFields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SandboxSpec {
                    kind: f.kind,
                    level: f.level,
                    network: f.network,
                    memory: f.memory,
                    cpu_millis: f.cpu_millis,
                    processes: f.processes,
                    file_size: f.file_size,
                    disk: f.disk,
                    image: f.image,
                })
            }
        }
        d.deserialize_any(V)
    }
}

/// What can be reached over the network from inside.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// These hosts alone, over the agent's proxy (`name` or `name:port`; 443 when absent).
    Hosts(Vec<String>),
    /// Whatever the agent can reach.
    Full,
}

impl Network {
    /// How far it goes.
    pub fn reach(&self) -> Reach {
        match self {
            Self::None => Reach::None,
            Self::Hosts(_) => Reach::Hosts,
            Self::Full => Reach::Full,
        }
    }

    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What an agent offers to box attempts in by.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SandboxOffer {
    /// Version of the program, or of the kernel's interface.
    pub version: String,
    /// What it promises on this machine.
    pub guarantees: Vec<Guarantee>,
}

impl SandboxOffer {
    /// Whether it gives all that a level promises.
    pub fn gives(&self, level: Level) -> bool {
        self.lacks(level).next().is_none()
    }

    /// What of a level it does not give.
    pub fn lacks(&self, level: Level) -> impl Iterator<Item = Guarantee> + '_ {
        let promised = level.guarantees().iter().copied();
        promised.filter(|g| !self.guarantees.contains(g))
    }
}

/// What an attempt was boxed in by in fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SandboxInUse {
    /// Which.
    pub kind: SandboxKind,
    /// What it promises.
    pub guarantees: Vec<Guarantee>,
    /// What limits memory and processors: `cgroup`, `rlimit`, the container engine, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// What limits the sum of its files: `watched`, since the agent looks at them, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}
