//! Which sandboxes work on this machine: each is tried with a program that does nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use conductor_protocol::ids::{Lease, Position, TaskId};
use conductor_protocol::terms::{Guarantee, Network, Reach, SandboxKind, SandboxOffer};
use rustix::process::Resource;
use tokio::process::Command;

use super::bubblewrap::Bubblewrap;
use super::cgroup::{self, Cgroups};
use super::container::{Engine, IMAGE_DEFAULT, ROOTFS};
use super::limits::{self, Limits};
use super::offer::{BoxOptions, Found};
use super::{Bind, Boxing, Sandbox, landlock, tools};
use crate::dirs::AttemptDirs;
use crate::input::Input;
use crate::process::{Launch, Process};
use crate::reaper::Status;

/// How long a program that does nothing may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// From here on, what is signalled by whom is confined too.
const ABI_WITH_SIGNALS: u32 = 6;
/// From here on, files cannot be cut short.
const ABI_WITH_TRUNCATE: u32 = 3;

type Tried = Result<(Sandbox, SandboxOffer), String>;

/// Looks for all of them.
pub(super) async fn machine(options: &BoxOptions) -> Result<Found, String> {
    let cgroups = cgroup::find(&options.data);
    let trial = Trial {
        options,
        cgroups: cgroups.as_ref(),
    };
    let (landlock, bubblewrap, podman, docker) = tokio::join!(
        trial.landlock(),
        trial.bubblewrap(),
        trial.engine(SandboxKind::Podman),
        trial.engine(SandboxKind::Docker),
    );
    let none = (Sandbox::None, SandboxOffer::default());
    let mut sandboxes = BTreeMap::from([(SandboxKind::None, none)]);
    let mut missing = BTreeMap::new();
    for (kind, tried) in [
        (SandboxKind::Landlock, landlock),
        (SandboxKind::Bubblewrap, bubblewrap),
        (SandboxKind::Podman, podman),
        (SandboxKind::Docker, docker),
    ] {
        match tried {
            Ok(found) => drop(sandboxes.insert(kind, found)),
            Err(why) => {
                tracing::info!(%kind, why, "a sandbox that does not work here");
                missing.insert(kind, why);
            }
        }
    }
    missing.insert(SandboxKind::Kubernetes, "agents start no pods".to_owned());
    let default = default(options.kind, &sandboxes, &missing)?;
    let hops = options
        .tools
        .iter()
        .map(|tool| tools::hops(tool, &options.path));
    let trees: Vec<PathBuf> = hops.flat_map(|hops| tools::trees(&hops)).collect();
    let found = Found {
        sandboxes,
        missing,
        default,
        network_max: options.network_max.unwrap_or(Reach::Full),
        cgroups,
        tools: trees.into_iter().map(Bind::read_only).collect(),
    };
    found.check()
}

/// What was asked for, if it works; else the usual one, or none and a word about it.
fn default(
    asked: Option<SandboxKind>,
    sandboxes: &BTreeMap<SandboxKind, (Sandbox, SandboxOffer)>,
    missing: &BTreeMap<SandboxKind, String>,
) -> Result<SandboxKind, String> {
    let kind = asked.unwrap_or(SandboxKind::Bubblewrap);
    if sandboxes.contains_key(&kind) {
        return Ok(kind);
    }
    let why = missing
        .get(&kind)
        .map_or("nobody looked for it", String::as_str);
    match asked {
        Some(_) => Err(format!("the sandbox {kind} does not work here: {why}")),
        // Whoever starts the agent says so.
        None => Ok(SandboxKind::None),
    }
}

/// One look at the machine.
struct Trial<'a> {
    options: &'a BoxOptions,
    cgroups: Option<&'a Cgroups>,
}

impl Trial<'_> {
    async fn landlock(&self) -> Tried {
        let enforced = landlock::probe()?;
        self.run(Sandbox::Landlock, None).await?;
        let mut guarantees = vec![Guarantee::FilesHidden, Guarantee::EnvironmentHidden];
        if enforced.abi >= ABI_WITH_TRUNCATE {
            guarantees.push(Guarantee::FilesReadOnly);
        }
        // Else a program could end its reaper first.
        if enforced.abi >= ABI_WITH_SIGNALS || self.cgroups.is_some() {
            guarantees.push(Guarantee::NothingLeft);
        }
        let version = format!("ABI {}", enforced.abi);
        Ok((Sandbox::Landlock, self.offer(version, guarantees, false)))
    }

    async fn bubblewrap(&self) -> Tried {
        let program = self.find("bwrap")?;
        let version = ask(&program, &["--version"]).await?;
        let version = version.trim_start_matches("bubblewrap ").to_owned();
        let is_root = rustix::process::geteuid().is_root();
        let mut bubblewrap = Bubblewrap {
            program,
            roots: roots(),
            disables_userns: true,
            counts_processes: !is_root,
        };
        if let Err(why) = self
            .run(Sandbox::Bubblewrap(bubblewrap.clone()), None)
            .await
        {
            bubblewrap.disables_userns = false;
            // The first reason is the better one, where neither works.
            let again = self
                .run(Sandbox::Bubblewrap(bubblewrap.clone()), None)
                .await;
            again.map_err(|_| why)?;
        }
        let guarantees = vec![
            Guarantee::NothingLeft,
            Guarantee::FilesReadOnly,
            Guarantee::FilesHidden,
            Guarantee::EnvironmentHidden,
            Guarantee::ProcessesHidden,
            Guarantee::NetworkClosed,
            Guarantee::CallsFiltered,
        ];
        let offer = self.offer(version, guarantees, bubblewrap.counts_processes);
        Ok((Sandbox::Bubblewrap(bubblewrap), offer))
    }

    async fn engine(&self, kind: SandboxKind) -> Tried {
        let program = self.find(kind.as_str())?;
        let env = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST"].into_iter();
        let env = env.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let of_engine = match kind {
            SandboxKind::Podman => {
                "{{.Version.Version}} {{.Host.Security.Rootless}} {{.Host.CgroupControllers}}"
            }
            _ => "{{.ServerVersion}} false memory={{.MemoryLimit}} pids={{.PidsLimit}}",
        };
        if kind == SandboxKind::Docker {
            // Of a daemon that is not there older clients say nothing when they are asked about it.
            ask(&program, &["version", "--format", "{{.Server.Version}}"]).await?;
        }
        let told = ask(&program, &["info", "--format", of_engine]).await?;
        let (version, rest) = told.split_once(' ').unwrap_or((&told, ""));
        let says = |what: &[&str]| what.iter().any(|what| rest.contains(what));
        let engine = Engine {
            kind,
            user: user(),
            ulimits_max: (
                limits::most(Resource::Nofile),
                limits::most(Resource::Nproc),
            ),
            is_rootless: rest.starts_with("true"),
            env: env.collect(),
            program,
        };
        let image = self.options.image.as_deref().unwrap_or(IMAGE_DEFAULT);
        // Fetching one takes longer than joining may.
        if !image.starts_with(ROOTFS) {
            let inspected = ask(&engine.program, &["image", "inspect", image]).await;
            inspected.map_err(|_| {
                format!("the image {image} is not here to try it with; fetch it with `{kind} pull`, or name another with --container-image")
            })?;
        }
        self.run(Sandbox::Container(engine.clone()), Some(image))
            .await?;
        let mut guarantees = vec![
            Guarantee::NothingLeft,
            Guarantee::FilesReadOnly,
            Guarantee::FilesHidden,
            Guarantee::EnvironmentHidden,
            Guarantee::ProcessesHidden,
            Guarantee::NetworkClosed,
            Guarantee::CallsFiltered,
        ];
        if says(&["memory=true", "memory"]) && !says(&["memory=false"]) {
            guarantees.push(Guarantee::MemoryLimited);
        }
        if says(&["pids=true", "pids"]) && !says(&["pids=false"]) {
            guarantees.push(Guarantee::ProcessesLimited);
        }
        let version = version.to_owned();
        Ok((
            Sandbox::Container(engine),
            SandboxOffer {
                version,
                guarantees,
            },
        ))
    }

    fn offer(
        &self,
        version: String,
        mut guarantees: Vec<Guarantee>,
        own_uid: bool,
    ) -> SandboxOffer {
        if self.cgroups.is_some_and(Cgroups::limits_memory) {
            guarantees.push(Guarantee::MemoryLimited);
        }
        if own_uid || self.cgroups.is_some_and(Cgroups::counts_processes) {
            guarantees.push(Guarantee::ProcessesLimited);
        }
        guarantees.sort();
        SandboxOffer {
            version,
            guarantees,
        }
    }

    /// A program by name, where the agent's programs are.
    fn find(&self, name: &str) -> Result<PathBuf, String> {
        tools::hops(Path::new(name), &self.options.path)
            .into_iter()
            .next()
            .ok_or_else(|| format!("{name} is not installed"))
    }

    /// Runs a program that does nothing in `sandbox`.
    async fn run(&self, sandbox: Sandbox, image: Option<&str>) -> Result<(), String> {
        let base = tempfile::tempdir().map_err(|e| format!("no directory to try it in: {e}"))?;
        let kind = sandbox.kind();
        let lease = Lease {
            task: TaskId::from_parts(0, [0; 10]),
            attempt: 1,
            assigned: Position::new(0, 0),
        };
        let dirs = AttemptDirs::of(base.path(), &lease);
        let name = format!("probe-{kind}-{}", std::process::id());
        dirs.create(&name)
            .map_err(|e| format!("no directories to try it in: {e}"))?;
        let launch = Launch {
            files: BTreeMap::new(),
            program: "true".to_owned(),
            args: Vec::new(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            stdin: Input::Closed(Vec::new()),
            cwd: sandbox.paths(&dirs).workspace,
        };
        let boxing = Boxing {
            sandbox,
            limits: Limits::of(None, kind),
            network: Network::None,
            ports: Vec::new(),
            image: image.map(str::to_owned),
            binds: self.options.read_only.iter().map(Bind::read_only).collect(),
            ..Boxing::none(self.options.reaper.clone(), name)
        };
        let tried = tokio::time::timeout(PATIENCE, try_it(&launch, &dirs, &boxing)).await;
        tried.unwrap_or_else(|_| Err("it did not end in time".to_owned()))
    }
}

/// Runs it to its end; what it says is the reason, where it fails.
async fn try_it(launch: &Launch, dirs: &AttemptDirs, boxing: &Boxing) -> Result<(), String> {
    use tokio::io::AsyncReadExt;
    let placed = dirs.place(&launch.stdin);
    placed.map_err(|e| format!("no directories to try it in: {e}"))?;
    let (mut process, mut stdout, mut stderr) = Process::start(launch, dirs, boxing)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // What cannot be read is missed in the reason.
    let _ = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
    let end = process.wait().await;
    if end.status == Status::Exited(0) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&err);
    match (said.trim(), end.status) {
        ("", Status::NotStarted(problem)) => Err(problem),
        ("", status) => Err(format!("a program that does nothing ended as {status:?}")),
        (said, _) => Err(explained(said)),
    }
}

/// What a program said, with the usual reason for it.
fn explained(said: &str) -> String {
    let said: String = said.chars().take(500).collect();
    let is_userns = ["uid map", "No permissions to creat", "CLONE_NEWUSER"];
    if is_userns.iter().any(|sign| said.contains(sign)) {
        return format!(
            "{said}; this machine lets no user make namespaces (see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
        );
    }
    said
}

/// What a command says; an error is its own, in short.
async fn ask(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("{} does not answer", program.display()))?;
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or("it fails");
    Err(last.chars().take(300).collect())
}

/// What beside `/usr` holds the system's programs: mostly links into it.
fn roots() -> Vec<(PathBuf, Option<PathBuf>)> {
    ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|root| root.exists())
        .map(|root| (root.clone(), std::fs::read_link(&root).ok()))
        .collect()
}

fn user() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}
