//! bubblewrap: namespaces of its own, and a file tree of what a program needs.
//!
//! It starts with an empty environment: what it was given could be read in `/proc/1/environ`
//! inside, whatever it clears (agent-facts, finding 6).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Bind, Boxing, REAPER_INSIDE, Start, paths_inside};
use crate::dirs::AttemptDirs;
use crate::reaper::{FILTER_FD, Plan};

/// What was found of it on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bubblewrap {
    /// The program.
    pub program: PathBuf,
    /// Directories beside `/usr` that hold programs and libraries: as links, or as they are.
    pub roots: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether it can keep programs from making namespaces of their own.
    pub disables_userns: bool,
    /// Whether the kernel counts the processes of a sandbox: it does not for root's.
    pub counts_processes: bool,
}

/// What programs read in `/etc` beside names of users and hosts: no secrets.
pub(super) const ETC: [&str; 20] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/inputrc",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// What of `/proc` speaks to the whole kernel: whoever is root outside could write there.
const PROC: [&str; 9] = [
    "/proc/acpi",
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/mtrr",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Arguments, gathered.
#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn add<const N: usize>(&mut self, args: [&str; N]) {
        self.0.extend(args.map(OsString::from));
    }

    fn bind(&mut self, how: &str, host: &Path, inside: &Path) {
        self.0.extend([how.into(), host.into(), inside.into()]);
    }

    fn read_only(&mut self, path: &str) {
        self.add(["--ro-bind-try", path, path]);
    }
}

impl Bubblewrap {
    pub(super) fn start(&self, boxing: &Boxing, plan: Plan, dirs: &AttemptDirs) -> Start {
        let mut args = Args::default();
        self.namespaces(&mut args, boxing.is_network_open());
        self.system(&mut args, boxing);
        let files = names(&mut args, dirs, boxing.is_network_open());
        own(&mut args, dirs);
        args.bind("--ro-bind", &boxing.reaper, Path::new(REAPER_INSIDE));
        for Bind {
            host,
            inside,
            writable,
        } in &boxing.binds
        {
            let how = if *writable { "--bind" } else { "--ro-bind-try" };
            args.bind(how, host, inside);
        }
        // What was made for mounts is not for writing.
        args.add(["--remount-ro", "/run", "--remount-ro", "/"]);
        args.add(["--chdir", "/", "--seccomp", FILTER_FD, "--"]);
        args.0.extend(Boxing::reaper_inside());
        let within = boxing.within(self.program.clone(), args.0, true);
        Start {
            files,
            dies_with_parent: true,
            ..within.into_start(plan)
        }
    }

    fn namespaces(&self, args: &mut Args, network: bool) {
        args.add(["--unshare-user", "--unshare-ipc", "--unshare-pid"]);
        args.add(["--unshare-uts", "--unshare-cgroup-try"]);
        if !network {
            args.add(["--unshare-net"]);
        }
        if self.disables_userns {
            args.add(["--disable-userns", "--assert-userns-disabled"]);
        }
        args.add(["--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        args.add(["--uid", "1000", "--gid", "1000", "--hostname", "agent"]);
    }

    fn system(&self, args: &mut Args, boxing: &Boxing) {
        args.add(["--ro-bind", "/usr", "/usr"]);
        for (root, link) in &self.roots {
            match link {
                Some(to) => args.bind("--symlink", to, root),
                None => args.bind("--ro-bind", root, root),
            }
        }
        for path in ETC {
            args.read_only(path);
        }
        if boxing.is_network_open() {
            args.read_only("/etc/resolv.conf");
            args.read_only("/etc/nsswitch.conf");
        }
        args.add(["--proc", "/proc"]);
        for path in PROC {
            args.read_only(path);
        }
        let shm = boxing.limits.shm().to_string();
        args.add(["--dev", "/dev", "--size", &shm, "--tmpfs", "/dev/shm"]);
        args.add(["--remount-ro", "/dev", "--tmpfs", "/run"]);
    }
}

/// Names of users and hosts: its own, and those of the machine where it may reach them.
fn names(args: &mut Args, dirs: &AttemptDirs, network: bool) -> Vec<(PathBuf, String)> {
    let mut files = vec![
        (
            "passwd",
            "root:x:0:0::/nonexistent:/usr/sbin/nologin\nagent:x:1000:1000::/home/agent:/bin/sh\n",
        ),
        ("group", "root:x:0:\nagent:x:1000:\n"),
    ];
    if network {
        args.read_only("/etc/hosts");
    } else {
        files.push(("hosts", "127.0.0.1 localhost agent\n::1 localhost\n"));
    }
    let files = files.into_iter().map(|(name, text)| {
        let host = dirs.root.join("etc").join(name);
        args.bind("--ro-bind", &host, &Path::new("/etc").join(name));
        (host, text.to_owned())
    });
    files.collect()
}

/// Its directories, where it finds them.
fn own(args: &mut Args, dirs: &AttemptDirs) {
    let inside = paths_inside();
    for (host, inside) in [
        (&dirs.workspace, &inside.workspace),
        (&dirs.home, &inside.home),
        (&dirs.tmp, &inside.tmp),
        (&dirs.run, &inside.run),
    ] {
        args.bind("--bind", host, inside);
    }
}
