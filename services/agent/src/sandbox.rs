//! What an attempt is boxed in by, and where its program finds things then.
//!
//! What a sandbox makes of a launch is data ([`Start`]), worked out without a look at the
//! machine: what it needs to know of that was found before ([`probe`]). Whatever the sandbox,
//! a reaper runs in it and does what its plan says.

mod bubblewrap;
pub mod cgroup;
mod container;
pub(crate) mod disk;
pub(crate) mod filter;
pub(crate) mod landlock;
pub mod limits;
mod offer;
pub(crate) mod privileges;
mod probe;
mod tools;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use conductor_protocol::terms::{Guarantee, Network, SandboxInUse, SandboxKind};

use crate::dirs::{AttemptDirs, Paths};
use crate::process::Launch;
use crate::reaper::{OUTER, Outer, Plan, RUN, Restrict, SUBCOMMAND};
use bubblewrap::Bubblewrap;
use cgroup::Cgroups;
use container::Engine;
use limits::Limits;

pub use offer::{BoxOptions, Boxes, Found};

/// A directory or file of the machine that is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is.
    pub host: PathBuf,
    /// Where it is seen; sandboxes that cannot move anything show it where it is.
    pub inside: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

impl Bind {
    /// Something that can be read where it is.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        let host = path.into();
        Self {
            inside: host.clone(),
            host,
            writable: false,
        }
    }
}

/// A way to box attempts in, and what was found of it on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Directories and an environment of its own.
    None,
    /// Rules of the kernel.
    Landlock,
    /// Namespaces, and a file tree of what it needs.
    Bubblewrap(Bubblewrap),
    /// A container.
    Container(Engine),
}

/// How one attempt is boxed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boxing {
    /// By what.
    pub sandbox: Sandbox,
    /// What that promises for this attempt.
    pub guarantees: Vec<Guarantee>,
    /// What it may use up.
    pub limits: Limits,
    /// Where control groups are made for attempts, if they are.
    pub cgroups: Option<Cgroups>,
    /// What it may reach.
    pub network: Network,
    /// Ports of loopback that it may reach though its network is closed.
    pub ports: Vec<u16>,
    /// Image of a container.
    pub image: Option<String>,
    /// What else is seen inside.
    pub binds: Vec<Bind>,
    /// The program that has the reaper's steps.
    pub reaper: PathBuf,
    /// Names the lease: in the environment, to find what is left of it.
    pub lease: String,
}

/// What is started in place of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment: others can read it, so that it holds nothing of the launch's.
    pub env: BTreeMap<String, String>,
    /// What the reaper is told.
    pub plan: Plan,
    /// Files that must be there.
    pub files: Vec<(PathBuf, String)>,
    /// Whether it dies with the thread that starts it.
    pub dies_with_parent: bool,
    /// A command that removes what killing the program would leave.
    pub remove: Option<Vec<OsString>>,
}

/// Where programs find their directories in a file tree of their own.
fn paths_inside() -> Paths {
    Paths {
        workspace: "/workspace".into(),
        home: "/home/agent".into(),
        tmp: "/tmp".into(),
        run: "/run/conductor".into(),
    }
}

/// Where the reaper is, in a file tree of its own.
const REAPER_INSIDE: &str = "/opt/conductor/conductor";

impl Sandbox {
    /// Which one it is.
    pub fn kind(&self) -> SandboxKind {
        match self {
            Self::None => SandboxKind::None,
            Self::Landlock => SandboxKind::Landlock,
            Self::Bubblewrap(_) => SandboxKind::Bubblewrap,
            Self::Container(engine) => engine.kind,
        }
    }

    /// Where the program finds its directories.
    pub fn paths(&self, dirs: &AttemptDirs) -> Paths {
        match self {
            Self::None | Self::Landlock => dirs.paths(),
            Self::Bubblewrap(_) | Self::Container(_) => paths_inside(),
        }
    }
}

impl Boxing {
    /// Nothing but directories and an environment: for tests, and where nothing is asked for.
    pub fn none(reaper: PathBuf, lease: String) -> Self {
        Self {
            sandbox: Sandbox::None,
            guarantees: Vec::new(),
            limits: Limits::default(),
            cgroups: None,
            network: Network::Full,
            ports: Vec::new(),
            image: None,
            binds: Vec::new(),
            reaper,
            lease,
        }
    }

    /// Where the program finds its directories.
    pub fn paths(&self, dirs: &AttemptDirs) -> Paths {
        self.sandbox.paths(dirs)
    }

    /// Whether it reaches whatever the agent does.
    pub(crate) fn is_network_open(&self) -> bool {
        self.network == Network::Full
    }

    /// Whether its loopback is not the agent's.
    pub(crate) fn has_own_network(&self) -> bool {
        let has_namespaces = matches!(self.sandbox, Sandbox::Bubblewrap(_) | Sandbox::Container(_));
        has_namespaces && !self.is_network_open()
    }

    /// What the log says of it.
    pub fn in_use(&self) -> SandboxInUse {
        let limits = match (&self.sandbox, &self.cgroups) {
            (Sandbox::Container(engine), _) => Some(engine.kind.to_string()),
            _ if self.limits == Limits::default() => None,
            (_, Some(groups)) if groups.limits_memory() => Some("cgroup".to_owned()),
            _ => Some("rlimit".to_owned()),
        };
        SandboxInUse {
            kind: self.sandbox.kind(),
            guarantees: self.guarantees.clone(),
            limits,
            disk: self.limits.disk.map(|_| "watched".to_owned()),
        }
    }

    /// What is started for `launch`.
    pub fn start(&self, launch: &Launch, dirs: &AttemptDirs) -> Start {
        let plan = self.plan(launch, dirs);
        match &self.sandbox {
            Sandbox::None | Sandbox::Landlock => self.start_here(plan, dirs),
            Sandbox::Bubblewrap(bubblewrap) => bubblewrap.start(self, plan, dirs),
            Sandbox::Container(engine) => engine.start(self, plan, dirs),
        }
    }

    /// What the reaper is told.
    fn plan(&self, launch: &Launch, dirs: &AttemptDirs) -> Plan {
        let mut env = launch.env.clone();
        env.insert("CONDUCTOR_LEASE".to_owned(), self.lease.clone());
        let is_counted = self.cgroups.as_ref().is_some_and(Cgroups::counts_processes)
            || matches!(self.sandbox, Sandbox::Container(_));
        Plan {
            program: launch.program.clone(),
            args: launch.args.clone(),
            env,
            cwd: launch.cwd.clone(),
            workspace: self.paths(dirs).workspace,
            restrict: self.restrict(dirs),
            processes: self.limits.processes.filter(|_| !is_counted),
            oom_at: match self.sandbox {
                Sandbox::Container(_) => container::oom_files(),
                _ => Vec::new(),
            },
        }
    }

    fn restrict(&self, dirs: &AttemptDirs) -> Option<Restrict> {
        let has_cgroup = self.cgroups.as_ref().is_some_and(Cgroups::limits_memory);
        let restrict = match &self.sandbox {
            Sandbox::None => Restrict {
                limits: self.limits.rlimits(has_cgroup, false),
                ..Restrict::default()
            },
            Sandbox::Landlock => Restrict {
                limits: self.limits.rlimits(has_cgroup, false),
                rules: Some(landlock::Rules {
                    ports: self.ports.clone(),
                    ..landlock::rules(dirs, &self.binds, self.is_network_open())
                }),
                is_unprivileged: true,
            },
            Sandbox::Bubblewrap(bubblewrap) => Restrict {
                limits: self.limits.rlimits(has_cgroup, bubblewrap.counts_processes),
                ..Restrict::default()
            },
            // The engine sets them.
            Sandbox::Container(_) => Restrict::default(),
        };
        Some(restrict).filter(|r| *r != Restrict::default())
    }

    /// The reaper as it is on the machine.
    fn start_here(&self, plan: Plan, dirs: &AttemptDirs) -> Start {
        let args = [SUBCOMMAND, RUN].map(OsString::from).to_vec();
        let args = [args, vec![dirs.run.clone().into()]].concat();
        let within = self.within(self.reaper.clone(), args, false);
        let mut start = within.into_start(plan);
        // A reaper that a program has stopped is found by that.
        let lease = ("CONDUCTOR_LEASE".to_owned(), self.lease.clone());
        start.env.extend([lease]);
        start
    }

    /// The reaper inside of a file tree of its own.
    fn reaper_inside() -> [OsString; 4] {
        let run = paths_inside().run;
        [
            REAPER_INSIDE.into(),
            SUBCOMMAND.into(),
            RUN.into(),
            run.into(),
        ]
    }

    /// A program, with what must be done before it.
    fn within(&self, program: PathBuf, args: Vec<OsString>, filter: bool) -> Within {
        let cgroup = self.cgroups.as_ref().map(|c| c.of(&self.lease));
        let outer = Outer { cgroup, filter };
        let how = serde_json::to_string(&outer).unwrap_or_default();
        if outer.is_empty() {
            return Within { program, args };
        }
        let steps = [SUBCOMMAND, OUTER, &how].map(OsString::from);
        let args = [steps.to_vec(), vec![program.into()], args].concat();
        Within {
            program: self.reaper.clone(),
            args,
        }
    }
}

/// A program and its arguments.
struct Within {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Within {
    fn into_start(self, plan: Plan) -> Start {
        Start {
            program: self.program,
            args: self.args,
            env: BTreeMap::new(),
            plan,
            files: Vec::new(),
            dies_with_parent: false,
            remove: None,
        }
    }
}

#[cfg(test)]
mod tests;
