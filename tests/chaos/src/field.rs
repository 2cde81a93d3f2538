//! The processes of Conductor, each behind links of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use conductor_harness::{Link, Process, Proxy};
use tempfile::TempDir;

use crate::ground::{Ground, Topology};

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Decides about tasks.
    Orchestrator,
    /// Assigns them.
    Scheduler,
    /// Runs them.
    Agent,
}

impl Kind {
    /// Its subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Scheduler => "scheduler",
            Self::Agent => "agent",
        }
    }

    /// The processes of this kind.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Orchestrator => &["o1", "o2"],
            Self::Scheduler => &["s1", "s2"],
            Self::Agent => &["a1", "a2", "a3"],
        }
    }
}

const KINDS: [Kind; 3] = [Kind::Orchestrator, Kind::Scheduler, Kind::Agent];
/// The client that submits has links of its own, too.
pub(crate) const CLIENT: &str = "client";

/// A process, and its links to every node.
#[derive(Debug)]
struct Member {
    args: Vec<String>,
    links: Vec<Proxy>,
    process: Option<Process>,
    dir: PathBuf,
}

/// Servers and processes.
#[derive(Debug)]
pub(crate) struct Field {
    members: BTreeMap<&'static str, Member>,
    /// The servers.
    pub(crate) ground: Ground,
    /// Where processes and tasks leave their files.
    pub(crate) dir: TempDir,
}

impl Field {
    /// Starts everything.
    pub(crate) async fn start(topology: Topology) -> Self {
        let ground = Ground::start(topology).await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut field = Self {
            members: BTreeMap::new(),
            ground,
            dir,
        };
        field.add(CLIENT, Vec::new()).await;
        let replicas = topology.nodes().to_string();
        for kind in KINDS {
            for name in kind.names() {
                let data = field.dir.path().join("data").display().to_string();
                let args: Vec<&str> = match kind {
                    Kind::Agent => {
                        vec!["agent", "--name", name, "--slots", "4", "--data-dir", &data]
                    }
                    role => {
                        let mut args = vec![role.name(), "--lock-ttl", "2s"];
                        args.extend(["--replicas", &replicas, "--snapshot-every", "500"]);
                        args
                    }
                };
                let args = args.into_iter().map(str::to_owned).collect();
                field.add(name, args).await;
                field.run(name);
            }
        }
        field
    }

    async fn add(&mut self, name: &'static str, args: Vec<String>) {
        let mut links = Vec::new();
        for port in self.ground.ports() {
            links.push(Proxy::to(port).await);
        }
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory for its log");
        let member = Member {
            args,
            links,
            process: None,
            dir,
        };
        self.members.insert(name, member);
    }

    /// The servers as a member sees them.
    pub(crate) fn urls(&self, name: &str) -> String {
        let links = self.members[name].links.iter();
        let urls: Vec<String> = links
            .map(|l| format!("nats://127.0.0.1:{}", l.port()))
            .collect();
        urls.join(",")
    }

    /// Every process of Conductor.
    pub(crate) fn processes() -> Vec<&'static str> {
        KINDS.iter().flat_map(|k| k.names()).copied().collect()
    }

    /// Starts a process, anew if it was there.
    pub(crate) fn run(&mut self, name: &'static str) {
        let urls = self.urls(name);
        let member = self.members.get_mut(name).expect("a member");
        let mut args: Vec<&str> = member.args.iter().map(String::as_str).collect();
        args.extend(["--nats-url", &urls, "--log", "info,async_nats=warn"]);
        member.process = None;
        member.process = Some(Process::start(&args, &[], &member.dir));
    }

    /// A process that runs.
    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        let member = self.members.get_mut(name).expect("a member");
        member.process.as_mut().expect("a process")
    }

    /// Changes every link of a member.
    pub(crate) fn link(&self, name: &str, link: Link) {
        self.members[name].links.iter().for_each(|l| l.set(link));
    }

    /// Changes every link of every member to a node.
    pub(crate) fn link_node(&self, node: usize, link: Link) {
        for member in self.members.values() {
            member.links[node].set(link);
        }
    }

    /// The process with this id.
    pub(crate) fn name_of(&self, pid: u32) -> Option<&'static str> {
        let is_it = |m: &Member| m.process.as_ref().is_some_and(|p| p.pid() == pid);
        let found = self.members.iter().find(|(_, m)| is_it(m));
        found.map(|(name, _)| *name)
    }

    /// Everything a process said, in all its lives.
    pub(crate) fn said(&self, name: &str) -> String {
        let entries = std::fs::read_dir(&self.members[name].dir).into_iter();
        let mut logs: Vec<_> = entries
            .flatten()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "log"))
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        logs.sort();
        let texts = logs.iter().map(|(_, p)| std::fs::read_to_string(p));
        texts.filter_map(Result::ok).collect()
    }

    /// The end of what everybody said, for people.
    pub(crate) fn last_words(&self) -> String {
        let mut out = String::new();
        for name in Self::processes() {
            let said = crate::tail(self.said(name).as_bytes(), 15);
            out += &format!("---- {name}\n{said}\n");
        }
        for node in 0..self.ground.nodes.len() {
            out += &format!("---- nats-server n{node}\n{}\n", self.ground.said(node));
        }
        out
    }
}
