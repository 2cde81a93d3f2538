//! Containers by podman or docker: an image as the file tree, and the engine's own limits.
//!
//! The reaper is this program, seen inside as one file: the image needs the C library that it
//! is linked with.

use std::ffi::OsString;
use std::path::PathBuf;

use conductor_protocol::terms::SandboxKind;

use super::{Bind, Boxing, REAPER_INSIDE, Start, paths_inside};
use crate::dirs::AttemptDirs;
use crate::reaper::{Plan, RUN, SUBCOMMAND};

/// An engine that was found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// [`SandboxKind::Podman`] or [`SandboxKind::Docker`].
    pub kind: SandboxKind,
    /// Its command.
    pub program: PathBuf,
    /// The agent's user and group: files are theirs inside and outside.
    pub user: (u32, u32),
    /// Whether the engine runs without root's rights.
    pub is_rootless: bool,
    /// Most open files and processes that the agent may hand on; engines ask for more by themselves,
    /// and fail where they must not.
    pub ulimits_max: (u64, u64),
    /// What the engine's command needs of the agent's environment, to find its own things.
    pub env: Vec<(String, String)>,
}

/// Image of tasks that name none, where the agent names none either.
pub(super) const IMAGE_DEFAULT: &str = "docker.io/library/debian:stable-slim";

/// An image that is a directory: podman runs it as it is.
pub(super) const ROOTFS: &str = "rootfs:";

/// Processes of the user that a container may see itself beside of.
const PROCESSES_OF_USER: u64 = 4_096;

/// Where the kernel counts kills for want of memory, as seen inside.
pub(super) fn oom_files() -> Vec<PathBuf> {
    [
        "/sys/fs/cgroup/memory.events",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ]
    .map(PathBuf::from)
    .to_vec()
}

/// Arguments, gathered.
#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn add<const N: usize>(&mut self, args: [&str; N]) {
        self.0.extend(args.map(OsString::from));
    }

    fn bind(&mut self, bind: &Bind) {
        let mut mount = OsString::from("type=bind,source=");
        mount.push(&bind.host);
        mount.push(",target=");
        mount.push(&bind.inside);
        if !bind.writable {
            mount.push(",readonly");
        }
        self.0.extend(["--mount".into(), mount]);
    }
}

impl Engine {
    pub(super) fn start(&self, boxing: &Boxing, plan: Plan, dirs: &AttemptDirs) -> Start {
        let name = container_name(&boxing.lease);
        let mut args = Args::default();
        args.add(["run", "--rm", "-i", "--name", &name, "--pull", "missing"]);
        let network = if boxing.is_network_open() {
            "host"
        } else {
            "none"
        };
        args.add(["--network", network]);
        args.add(["--read-only", "--cap-drop", "all"]);
        args.add([
            "--security-opt",
            "no-new-privileges",
            "--log-driver",
            "none",
        ]);
        let (uid, gid) = self.user;
        args.add(["--user", &format!("{uid}:{gid}")]);
        if self.is_rootless && self.kind == SandboxKind::Podman {
            args.add(["--userns", "keep-id"]);
        }
        self.limits(&mut args, boxing);
        for bind in binds(boxing, dirs) {
            args.bind(&bind);
        }
        args.add(["--workdir", "/", "--entrypoint", REAPER_INSIDE]);
        let image = boxing.image.as_deref().unwrap_or(IMAGE_DEFAULT);
        match image.strip_prefix(ROOTFS) {
            Some(tree) => args.add(["--rootfs", tree]),
            None => args.add([image]),
        }
        args.add([SUBCOMMAND, RUN]);
        args.0.push(paths_inside().run.into());
        let mut remove = vec![self.program.clone().into()];
        remove.extend(["rm", "--force", &name].map(OsString::from));
        Start {
            program: self.program.clone(),
            args: args.0,
            env: self.env.iter().cloned().collect(),
            plan,
            files: Vec::new(),
            dies_with_parent: false,
            remove: Some(remove),
        }
    }

    /// Both each limit and the most it can be raised to: engines take neither from the agent.
    fn limits(&self, args: &mut Args, boxing: &Boxing) {
        let limits = &boxing.limits;
        if let Some(memory) = limits.memory {
            let memory = memory.to_string();
            args.add(["--memory", &memory, "--memory-swap", &memory]);
        }
        if let Some(millis) = limits.cpu_millis {
            let cpus = format!("{}.{:03}", millis / 1_000, millis % 1_000);
            args.add(["--cpus", &cpus]);
        }
        if let Some(processes) = limits.processes {
            args.add(["--pids-limit", &processes.to_string()]);
        }
        if limits.disk.is_some() {
            args.add(["--shm-size", &limits.shm().to_string()]);
        }
        let (files_max, processes_max) = self.ulimits_max;
        let of_user = PROCESSES_OF_USER.min(processes_max);
        let ulimits = [
            ("core", Some(0)),
            ("nofile", limits.files.map(|n| n.min(files_max))),
            ("fsize", limits.file_size),
            (
                "nproc",
                Some(of_user).filter(|_| self.kind == SandboxKind::Podman),
            ),
        ];
        for (name, limit) in ulimits {
            if let Some(n) = limit {
                args.add(["--ulimit", &format!("{name}={n}:{n}")]);
            }
        }
    }
}

/// What is seen inside: its directories, the reaper, and what else was asked for.
fn binds(boxing: &Boxing, dirs: &AttemptDirs) -> Vec<Bind> {
    let inside = paths_inside();
    let own = [
        (&dirs.workspace, inside.workspace),
        (&dirs.home, inside.home),
        (&dirs.tmp, inside.tmp),
        (&dirs.run, inside.run),
    ];
    let own = own.into_iter().map(|(host, inside)| Bind {
        host: host.clone(),
        inside,
        writable: true,
    });
    let reaper = Bind {
        host: boxing.reaper.clone(),
        inside: REAPER_INSIDE.into(),
        writable: false,
    };
    own.chain([reaper])
        .chain(boxing.binds.iter().cloned())
        .collect()
}

/// A name that engines allow, from that of a lease.
fn container_name(lease: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("conductor-{}", lease.chars().map(plain).collect::<String>())
}
