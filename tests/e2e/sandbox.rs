//! What boxes tasks in: every sandbox that works on this machine is held to what it promises,
//! and the reason is printed for each that does not.

mod ends;
mod limits;
mod network;
mod user;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Story, System, until};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use conductor_protocol::terms::{Guarantee, SandboxInUse, SandboxKind};
use serde_json::{Value, json};

/// In the environment of the agent, and of nothing else.
const CANARY: &str = "conductor-canary-42";

/// A system, and the sandboxes that work in it.
struct Room {
    system: System,
    story: Story,
    offers: Vec<(SandboxKind, Vec<Guarantee>)>,
}

impl Room {
    /// Agents that offer whatever works here; by default they box nothing in.
    async fn open() -> Self {
        let mut system = System::bare().await;
        let image = small_image(&system);
        system.env = vec![
            ("CANARY".into(), CANARY.into()),
            ("CONDUCTOR_SANDBOX_RO".into(), "/usr".into()),
            ("CONDUCTOR_CONTAINER_IMAGE".into(), image),
        ];
        // A slot for each sandbox there is, so that they can all be busy at once.
        system.start_up(&["--agents", "1", "--slots", "8"]).await;
        let mut story = system.story().await;
        let agents = |s: &Story| s.state().agents.values().next().cloned();
        let agent = story.until("an agent", agents).await;
        let offers: Vec<_> = agent
            .joined
            .sandboxes
            .iter()
            .map(|(kind, offer)| (*kind, offer.guarantees.clone()))
            .collect();
        let said = system.process("up").said();
        for line in said.lines().filter(|l| l.contains("does not work here")) {
            eprintln!("not tested here: {line}");
        }
        if std::env::var_os("CI").is_some() {
            let bubblewrap = offers.iter().any(|(k, _)| *k == SandboxKind::Bubblewrap);
            assert!(
                bubblewrap,
                "bubblewrap must work where everything is tested:\n{said}"
            );
        }
        Self {
            system,
            story,
            offers,
        }
    }

    /// The sandboxes that promise something.
    fn that_promise(&self, guarantee: Guarantee) -> Vec<SandboxKind> {
        let of = self
            .offers
            .iter()
            .filter(|(_, all)| all.contains(&guarantee));
        of.map(|(kind, _)| *kind).collect()
    }

    fn has(&self, kind: SandboxKind) -> bool {
        self.offers.iter().any(|(k, _)| *k == kind)
    }

    async fn submit(&self, sandbox: Value, script: &str) -> TaskId {
        let mut task = sh(script);
        task["sandbox"] = sandbox;
        self.system.submit(task).await
    }

    /// Runs a script in a sandbox to its end; returns how it ended and what it printed.
    async fn run(&mut self, sandbox: Value, script: &str) -> (Outcome, String) {
        let id = self.submit(sandbox, script).await;
        let outcome = self.story.outcome(id).await;
        let printed = self.system.cli(&["task", "logs", &id.to_string()]).await;
        (outcome, printed.ok())
    }

    /// What a script prints in a sandbox of that kind; it must succeed.
    async fn prints(&mut self, kind: SandboxKind, script: &str) -> String {
        let (outcome, printed) = self.run(json!({"kind": kind}), script).await;
        assert_eq!(outcome, Outcome::Succeeded, "{kind}: {printed}");
        printed
    }

    fn in_use(&self, id: TaskId) -> SandboxInUse {
        match self.story.find(id, "attempt.started").unwrap().event {
            Some(Event::AttemptStarted(e)) => e.sandbox.expect("it says what boxes it in"),
            other => panic!("{other:?}"),
        }
    }

    /// Why a task's attempt failed.
    fn message(&self, id: TaskId) -> String {
        match self.story.find(id, "attempt.failed").unwrap().event {
            Some(Event::AttemptFailed(e)) => format!("{}: {}", e.class, e.message),
            other => panic!("{other:?}"),
        }
    }
}

/// An image for containers: a file tree in which the machine's programs are seen. podman runs it as
/// it is; docker runs no trees, so where it works both are given an image that is made of it.
pub(super) fn small_image(system: &System) -> String {
    let root = small_tree(system);
    if !has_engine("docker") {
        return format!("rootfs:{}", root.display());
    }
    for engine in ["docker", "podman"] {
        if has_engine(engine) {
            import(engine, &root);
        }
    }
    IMAGE.to_owned()
}

/// What the image is called: of this machine, so that nobody looks for it elsewhere.
const IMAGE: &str = "localhost/conductor-test:latest";

fn has_engine(engine: &str) -> bool {
    let asked = Command::new(engine).args(["info"]).output();
    asked.is_ok_and(|a| a.status.success())
}

/// Makes an image of a file tree.
fn import(engine: &str, root: &Path) {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root).args(["-c", "."]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
    let mut import = Command::new(engine);
    import.args(["import", "-", IMAGE]);
    let imported = import.stdin(tar.stdout.take().unwrap()).output().unwrap();
    assert!(
        tar.wait().unwrap().success() && imported.status.success(),
        "{imported:?}"
    );
}

fn small_tree(system: &System) -> PathBuf {
    let root = system.dir.path().join("image");
    let dirs = "usr etc proc sys dev tmp run workspace home/agent opt/conductor var";
    for dir in dirs.split(' ') {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    root
}

#[tokio::test]
async fn what_an_attempt_is_boxed_in_by_is_said_when_it_starts() {
    let mut room = Room::open().await;
    for (kind, guarantees) in room.offers.clone() {
        let id = room
            .submit(json!({"kind": kind}), "pwd; echo $HOME; id -u")
            .await;
        assert_eq!(room.story.outcome(id).await, Outcome::Succeeded, "{kind}");
        let used = room.in_use(id);
        assert_eq!((used.kind, used.guarantees), (kind, guarantees));
        if kind >= SandboxKind::Bubblewrap {
            let printed = room
                .system
                .cli(&["task", "logs", &id.to_string()])
                .await
                .ok();
            assert!(
                printed.starts_with("/workspace\n/home/agent\n"),
                "{kind}: {printed}"
            );
        }
        eprintln!("{kind}: limits by {:?}", used.limits);
    }
}

#[tokio::test]
async fn files_of_the_machine_are_out_of_reach() {
    let mut room = Room::open().await;
    let outside = room.system.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let secret = outside.join("secret");
    std::fs::write(&secret, "the secret text\n").unwrap();
    let (dir, file) = (outside.display(), secret.display());
    let script = format!(
        "cat {file} && echo READ; ls {dir} && echo LISTED; echo x >> {file} && echo WROTE; \
         echo x > {dir}/new && echo MADE; rm -f {file} && [ ! -e {file} ] && echo GONE; \
         n=$(cat /proc/sys/kernel/core_uses_pid); \
         echo $n > /proc/sys/kernel/core_uses_pid && echo SET; \
         cat /etc/shadow && echo SHADOW; echo mine > mine && cat mine; touch $HOME/a $TMPDIR/b && echo OWN; true"
    );
    for (kind, _) in room.offers.clone() {
        std::fs::write(&secret, "the secret text\n").unwrap();
        let _ = std::fs::remove_file(outside.join("new"));
        let printed = room.prints(kind, &script).await;
        let has = |word: &str| printed.lines().any(|line| line == word);
        assert!(has("mine") && has("OWN"), "{kind}: {printed}");
        if kind == SandboxKind::None {
            assert!(
                has("READ") && has("WROTE"),
                "the script finds it: {printed}"
            );
        }
        if room.that_promise(Guarantee::FilesHidden).contains(&kind) {
            assert!(
                !has("READ") && !has("LISTED") && !has("SHADOW"),
                "{kind}: {printed}"
            );
            assert!(!printed.contains("the secret"), "{kind}: {printed}");
        }
        if room.that_promise(Guarantee::FilesReadOnly).contains(&kind) {
            let wrote = ["WROTE", "MADE", "SET"].into_iter().any(has);
            assert!(!wrote, "{kind}: {printed}");
            // In a file tree of its own it was never there.
            let text = std::fs::read_to_string(&secret).unwrap();
            assert_eq!(text, "the secret text\n", "{kind}");
            assert!(!outside.join("new").exists(), "{kind}");
        }
    }
}

#[tokio::test]
async fn test_4_no_environment_but_its_own_can_be_read() {
    let mut room = Room::open().await;
    let script = format!(
        "exec 2>/dev/null; for e in /proc/[0-9]*/environ; do tr '\\0' '\\n' < $e; done | grep CANARY={CANARY}; \
         tr '\\0' '\\n' < /proc/1/environ | grep CANARY; env | grep CANARY; echo looked"
    );
    for (kind, _) in room.offers.clone() {
        let printed = room.prints(kind, &script).await;
        if room
            .that_promise(Guarantee::EnvironmentHidden)
            .contains(&kind)
        {
            assert_eq!(printed, "looked\n", "{kind}");
        }
        if kind == SandboxKind::None {
            assert!(printed.contains(CANARY), "the script finds it: {printed}");
        }
    }
}

#[tokio::test]
async fn no_other_process_can_be_seen_or_signalled() {
    let mut room = Room::open().await;
    let victim = Victim::start();
    let script = format!(
        "exec 2>/dev/null; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep 3004[2]'; \
         [ -e /proc/{0}/cmdline ] && kill -CONT {0} && echo SIGNALLED; echo looked",
        victim.0.id()
    );
    for (kind, _) in room.offers.clone() {
        let printed = room.prints(kind, &script).await;
        if room
            .that_promise(Guarantee::ProcessesHidden)
            .contains(&kind)
        {
            assert_eq!(printed, "looked\n", "{kind}");
        }
        if kind == SandboxKind::Landlock
            && room.that_promise(Guarantee::NothingLeft).contains(&kind)
        {
            assert!(!printed.contains("SIGNALLED"), "{kind}: {printed}");
        }
        if kind == SandboxKind::None {
            let found = printed.contains("sleep 30042\n") && printed.contains("SIGNALLED");
            assert!(found, "the script finds it: {printed}");
        }
    }
}

/// A process of the machine. Dropped, it ends.
struct Victim(std::process::Child);

impl Victim {
    fn start() -> Self {
        let started = std::process::Command::new("sleep").arg("30042").spawn();
        Self(started.unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts who connects to a port of this machine.
fn listen() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    // It ends with the test process.
    std::thread::spawn(move || {
        for _connection in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[tokio::test]
async fn the_network_is_closed_unless_it_is_asked_for() {
    let mut room = Room::open().await;
    let (port, count) = listen();
    let script =
        format!("bash -c 'echo hi > /dev/tcp/127.0.0.1/{port}' && echo CONNECTED; echo tried");
    for (kind, guarantees) in room.offers.clone() {
        let before = count.load(Ordering::SeqCst);
        let closed = room.prints(kind, &script).await;
        // Landlock knows TCP alone, and so does not promise more.
        if guarantees.contains(&Guarantee::NetworkClosed) || kind == SandboxKind::Landlock {
            assert!(!closed.contains("CONNECTED"), "{kind}: {closed}");
            assert_eq!(count.load(Ordering::SeqCst), before, "{kind}");
        }
        let open = json!({"kind": kind, "network": "full"});
        let id = room.submit(open, &script).await;
        assert_eq!(room.story.outcome(id).await, Outcome::Succeeded, "{kind}");
        until(|| match count.load(Ordering::SeqCst) {
            n if n > before => Ok(()),
            _ => Err(format!("a connection from {kind}")),
        })
        .await;
        assert!(
            !room
                .in_use(id)
                .guarantees
                .contains(&Guarantee::NetworkClosed)
        );
    }
}

#[tokio::test]
async fn calls_that_lead_out_are_refused() {
    let mut room = Room::open().await;
    let script = "python3 - <<'E'\nimport ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                  for name, n in (('ptrace', 101), ('unshare', 272), ('bpf', 321), ('userfaultfd', 323), ('io_uring_setup', 425), ('keyctl', 250)):\n\
                  \x20   r = libc.syscall(n, 0, 0, 0, 0)\n\
                  \x20   print(name, r, ctypes.get_errno() if r < 0 else 0)\nE\n\
                  unshare -Ur true && echo NAMESPACE; true";
    for (kind, guarantees) in room.offers.clone() {
        if !guarantees.contains(&Guarantee::CallsFiltered) || cfg!(not(target_arch = "x86_64")) {
            continue;
        }
        let printed = room.prints(kind, script).await;
        assert!(!printed.contains("NAMESPACE"), "{kind}: {printed}");
        if kind == SandboxKind::Bubblewrap {
            let refused = printed.lines().filter(|l| l.ends_with(" -1 1")).count();
            assert_eq!(refused, 6, "{printed}");
        }
    }
}

#[tokio::test]
async fn a_level_is_given_by_the_weakest_that_suffices_or_refused_by_name() {
    let mut room = Room::open().await;
    for level in ["minimal", "moderate", "strict"] {
        let id = room.submit(level.into(), "true").await;
        let level: conductor_protocol::terms::Level = serde_json::from_value(level.into()).unwrap();
        let gives = |all: &Vec<Guarantee>| level.guarantees().iter().all(|g| all.contains(g));
        let first = room.offers.iter().find(|(_, all)| gives(all));
        match first.map(|(kind, _)| *kind) {
            Some(kind) => {
                assert_eq!(room.story.outcome(id).await, Outcome::Succeeded, "{level}");
                assert_eq!(room.in_use(id).kind, kind, "{level}");
            }
            None => {
                room.story.told(id, "task.accepted").await;
                let why = room.system.cli(&["why", &id.to_string()]).await.ok();
                assert!(why.contains("lacks"), "{why}");
                eprintln!("{level}: {}", why.trim());
            }
        }
    }
    let pod = room.submit("kubernetes".into(), "true").await;
    room.story.told(pod, "task.accepted").await;
    let why = room.system.cli(&["why", &pod.to_string()]).await.ok();
    assert!(why.contains("offers the sandbox kubernetes"), "{why}");
}

#[tokio::test]
async fn an_agent_offers_nothing_weaker_than_its_default() {
    let room = Room::open().await;
    if !room.has(SandboxKind::Bubblewrap) {
        eprintln!("bubblewrap does not work here");
        return;
    }
    let mut system = System::bare().await;
    system
        .start_up(&["--agents", "1", "--sandbox", "auto"])
        .await;
    let mut story = system.story().await;
    let plain = system.submit(sh("pwd")).await;
    assert_eq!(story.outcome(plain).await, Outcome::Succeeded);
    let agent = story.state().agents.values().next().unwrap();
    assert_eq!(agent.joined.sandbox, Some(SandboxKind::Bubblewrap));
    assert!(!agent.joined.sandboxes.contains_key(&SandboxKind::None));
    let mut task = sh("true");
    task["sandbox"] = "none".into();
    let id = system.submit(task).await;
    story.told(id, "task.accepted").await;
    let why = system.cli(&["why", &id.to_string()]).await.ok();
    assert!(why.contains("offers the sandbox none"), "{why}");
    let printed = system.cli(&["task", "logs", &plain.to_string()]).await.ok();
    assert_eq!(printed, "/workspace\n");
}

#[tokio::test]
async fn a_sandbox_that_does_not_work_here_is_no_default() {
    let mut system = System::bare().await;
    system.start(
        "agent",
        &["agent", "--name", "a1", "--sandbox", "kubernetes"],
    );
    let status = system.process("agent").ended().await;
    let said = system.process("agent").said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("kubernetes does not work here: agents start no pods"),
        "{said}"
    );
}
