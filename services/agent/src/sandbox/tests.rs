//! What each sandbox makes of a launch, as data.

use std::path::Path;

use conductor_protocol::ids::{Lease, Position, TaskId};
use conductor_protocol::terms::SandboxSpec;
use expect_test::{expect, expect_file};

use super::*;
use crate::input::Input;

fn dirs() -> AttemptDirs {
    let lease = Lease {
        task: TaskId::from_parts(0, [0; 10]),
        attempt: 1,
        assigned: Position::new(5, 0),
    };
    let mut dirs = AttemptDirs::of(Path::new("/data"), &lease);
    let short = |path: &mut PathBuf| {
        let rest = path.strip_prefix(&dirs.root).unwrap_or(path);
        *path = Path::new("/data/t-1").join(rest);
    };
    for path in [
        &mut dirs.workspace,
        &mut dirs.home,
        &mut dirs.tmp,
        &mut dirs.run,
    ] {
        short(path);
    }
    dirs.root = "/data/t-1".into();
    dirs
}

fn bubblewrap() -> Sandbox {
    Sandbox::Bubblewrap(Bubblewrap {
        program: "/usr/bin/bwrap".into(),
        roots: vec![
            ("/bin".into(), Some("usr/bin".into())),
            ("/lib64".into(), None),
        ],
        disables_userns: true,
        counts_processes: true,
    })
}

fn podman() -> Sandbox {
    Sandbox::Container(Engine {
        kind: SandboxKind::Podman,
        program: "/usr/bin/podman".into(),
        user: (1000, 1000),
        is_rootless: true,
        ulimits_max: (20_000, 90_000),
        env: vec![("HOME".into(), "/home/me".into())],
    })
}

fn boxing(sandbox: Sandbox) -> Boxing {
    let asked: SandboxSpec = serde_json::from_str(
        r#"{"memory":"64m","cpu_millis":1500,"processes":32,"file_size":"1m"}"#,
    )
    .unwrap();
    Boxing {
        limits: Limits::of(Some(&asked), sandbox.kind()),
        network: Network::None,
        ports: Vec::new(),
        binds: vec![
            Bind::read_only("/tools"),
            Bind {
                host: "/git/objects".into(),
                inside: "/objects".into(),
                writable: true,
            },
        ],
        sandbox,
        ..Boxing::none("/bin/conductor".into(), "t/1/5.0".into())
    }
}

fn launch(boxing: &Boxing) -> Launch {
    Launch {
        files: BTreeMap::new(),
        program: "sh".into(),
        args: vec!["-c".into(), "echo secret argument".into()],
        env: [("KEY".into(), "secret value".into())].into(),
        stdin: Input::Closed(b"secret input".to_vec()),
        cwd: boxing.paths(&dirs()).workspace,
    }
}

fn start(boxing: &Boxing) -> Start {
    boxing.start(&launch(boxing), &dirs())
}

/// A command as people read it, an option to a line.
fn shown(start: &Start) -> String {
    let mut out = format!("env: {:?}\n{}", start.env, start.program.display());
    for arg in &start.args {
        let arg = arg.to_string_lossy();
        let is_option = arg.starts_with("--") || arg.starts_with("__");
        out.push_str(if is_option { "\n  " } else { " " });
        out.push_str(&arg);
    }
    out.push('\n');
    out
}

#[test]
fn nothing_but_the_reaper_stands_before_a_program_without_a_sandbox() {
    let boxing = Boxing::none("/bin/conductor".into(), "t/1/5.0".into());
    let start = start(&boxing);
    expect![[r#"
        env: {"CONDUCTOR_LEASE": "t/1/5.0"}
        /bin/conductor
          __reaper run /data/t-1/run
    "#]]
    .assert_eq(&shown(&start));
    assert_eq!(start.plan.restrict, None);
    assert_eq!(start.plan.env["KEY"], "secret value");
    assert_eq!(start.plan.env["CONDUCTOR_LEASE"], "t/1/5.0");
}

#[test]
fn bubblewrap_shows_what_is_needed_and_nothing_else() {
    let boxing = boxing(bubblewrap());
    let start = start(&boxing);
    expect_file!["../../tests/fixtures/bubblewrap-args.txt"].assert_eq(&shown(&start));
    assert!(start.dies_with_parent);
    assert_eq!(start.plan.workspace, Path::new("/workspace"));
    let names: Vec<_> = start
        .files
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "/data/t-1/etc/passwd",
            "/data/t-1/etc/group",
            "/data/t-1/etc/hosts"
        ]
    );
}

#[test]
fn an_open_network_comes_with_its_names() {
    let open = Boxing {
        network: Network::Full,
        ..boxing(bubblewrap())
    };
    let (closed, open) = (shown(&start(&boxing(bubblewrap()))), shown(&start(&open)));
    let lines = |text: &str| {
        text.lines()
            .map(|l| l.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let (closed, open) = (lines(&closed), lines(&open));
    let less: Vec<_> = closed.iter().filter(|l| !open.contains(l)).collect();
    let more: Vec<_> = open.iter().filter(|l| !closed.contains(l)).collect();
    assert_eq!(
        less,
        ["--unshare-net", "--ro-bind /data/t-1/etc/hosts /etc/hosts"]
    );
    assert_eq!(
        more,
        [
            "--ro-bind-try /etc/resolv.conf /etc/resolv.conf",
            "--ro-bind-try /etc/nsswitch.conf /etc/nsswitch.conf",
            "--ro-bind-try /etc/hosts /etc/hosts"
        ]
    );
}

#[test]
fn a_container_is_limited_by_its_engine() {
    let mut boxing = boxing(podman());
    boxing.image = Some("example.org/image:1".into());
    let start = start(&boxing);
    expect![[r#"
        env: {"HOME": "/home/me"}
        /usr/bin/podman run
          --rm -i
          --name conductor-t-1-5-0
          --pull missing
          --network none
          --read-only
          --cap-drop all
          --security-opt no-new-privileges
          --log-driver none
          --user 1000:1000
          --userns keep-id
          --memory 67108864
          --memory-swap 67108864
          --cpus 1.500
          --pids-limit 32
          --ulimit core=0:0
          --ulimit nofile=4096:4096
          --ulimit fsize=1048576:1048576
          --ulimit nproc=4096:4096
          --mount type=bind,source=/data/t-1/workspace,target=/workspace
          --mount type=bind,source=/data/t-1/home,target=/home/agent
          --mount type=bind,source=/data/t-1/tmp,target=/tmp
          --mount type=bind,source=/data/t-1/run,target=/run/conductor
          --mount type=bind,source=/bin/conductor,target=/opt/conductor/conductor,readonly
          --mount type=bind,source=/tools,target=/tools,readonly
          --mount type=bind,source=/git/objects,target=/objects
          --workdir /
          --entrypoint /opt/conductor/conductor example.org/image:1
          __reaper run /run/conductor
    "#]]
    .assert_eq(&shown(&start));
    assert_eq!((start.plan.restrict, start.plan.processes), (None, None));
    let remove: Vec<_> = start
        .remove
        .unwrap()
        .iter()
        .map(|a| a.display().to_string())
        .collect();
    assert_eq!(
        remove.join(" "),
        "/usr/bin/podman rm --force conductor-t-1-5-0"
    );
}

#[test]
fn an_image_may_be_a_directory() {
    let mut boxing = boxing(podman());
    boxing.image = Some("rootfs:/images/small".into());
    let shown = shown(&start(&boxing));
    assert!(
        shown.ends_with("--rootfs /images/small\n  __reaper run /run/conductor\n"),
        "{shown}"
    );
}

#[test]
fn landlock_lets_a_program_reach_its_own_and_the_systems() {
    let start = start(&boxing(Sandbox::Landlock));
    let restrict = start.plan.restrict.unwrap();
    assert!(restrict.is_unprivileged);
    let rules = restrict.rules.unwrap();
    let write: Vec<_> = rules
        .write
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    assert_eq!(
        write.join(" "),
        "/data/t-1/workspace /data/t-1/home /data/t-1/tmp /data/t-1/run /dev/null /dev/zero \
         /dev/full /dev/tty /dev/ptmx /dev/pts /dev/shm /git/objects"
    );
    assert!(rules.read.contains(&"/tools".into()) && rules.read.contains(&"/usr".into()));
    let is_root = |path: &PathBuf| path == Path::new("/") || path == Path::new("/etc");
    assert!(!rules.read.iter().any(is_root) && !rules.network);
}

#[test]
fn nothing_of_a_launch_can_be_seen_in_arguments_or_environment() {
    for sandbox in [Sandbox::None, Sandbox::Landlock, bubblewrap(), podman()] {
        let start = start(&boxing(sandbox));
        let seen = shown(&start);
        assert!(!seen.contains("secret"), "{seen}");
        let files = format!("{:?}", start.files);
        assert!(!files.contains("secret"), "{files}");
    }
}

#[test]
fn limits_come_from_whoever_can_keep_them() {
    let groups = |controllers: &[&str]| Cgroups {
        base: "/sys/fs/cgroup/conductor".into(),
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
    };
    let with = |cgroups| Boxing {
        cgroups,
        ..boxing(bubblewrap())
    };
    let (data, count) = (Some(64 << 20), Some(32));
    for (cgroups, says, memory, processes) in [
        (None, "rlimit", data, count),
        (Some(groups(&[])), "rlimit", data, count),
        (Some(groups(&["memory", "pids"])), "cgroup", None, None),
    ] {
        let boxing = with(cgroups);
        let plan = start(&boxing).plan;
        assert_eq!(boxing.in_use().limits.as_deref(), Some(says));
        assert_eq!(plan.restrict.unwrap().limits.data, memory);
        assert_eq!(plan.processes, processes);
    }
    let mut small = with(None);
    small.limits.disk = Some(1 << 20);
    assert_eq!(small.in_use().disk.as_deref(), Some("watched"));
    assert_eq!(with(None).in_use().disk, None);
    assert!(shown(&start(&small)).contains("--size 1048576"));
    small.sandbox = podman();
    assert!(shown(&start(&small)).contains("--shm-size 1048576"));
    let joined = shown(&start(&with(Some(groups(&["memory"])))));
    assert!(joined.contains(r#"{"cgroup":"/sys/fs/cgroup/conductor/t-1-5.0","filter":true}"#));
    assert_eq!(boxing(podman()).in_use().limits.as_deref(), Some("podman"));
}
