//! A disk that can be full: a small file system of its own where that is allowed, else a
//! limit on the size of the server's files.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Size of the file system; it takes memory only for what is in it.
const SIZE: &str = "512m";

/// Set for the program once it runs where it may mount.
const INSIDE: &str = "CHAOS_INSIDE";

/// Becomes this program again in a mount namespace of its own, where one is to be had: what
/// is mounted there is gone with the last process, however that ends.
pub(crate) fn enter_namespace() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let Ok(exe) = std::env::current_exe() else {
        return;
    };
    for flags in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut trial = Command::new("unshare");
        trial
            .args(flags)
            .args(["mount", "-t", "tmpfs", "trial", "/mnt"]);
        if trial.output().is_ok_and(|o| o.status.success()) {
            let mut command = Command::new("unshare");
            command
                .args(flags)
                .arg(&exe)
                .args(std::env::args_os().skip(1));
            let problem = command.env(INSIDE, "1").exec();
            eprintln!("no mount namespace: {problem}");
        }
    }
}

/// Where the first server keeps its store.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    /// Why it is no file system of its own, where it is none.
    pub(crate) fallback: Option<String>,
}

impl Disk {
    /// Mounts one at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory for the store");
        let fallback = if std::env::var_os(INSIDE).is_none() {
            Some("no mount namespace is to be had".to_owned())
        } else {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "chaos"]);
            match mount.arg(path).output() {
                Ok(o) if o.status.success() => None,
                Ok(o) => Some(String::from_utf8_lossy(&o.stderr).trim().to_owned()),
                Err(e) => Some(e.to_string()),
            }
        };
        Self {
            path: path.to_owned(),
            fallback,
        }
    }

    /// How "full" is made, for the report.
    pub(crate) fn method(&self) -> String {
        match &self.fallback {
            None => format!("a tmpfs of {SIZE}, filled to the last byte"),
            Some(why) => format!("RLIMIT_FSIZE of the server ({why})"),
        }
    }

    /// Fills it: from here on the server cannot write.
    pub(crate) fn fill(&self, server: i32) {
        if self.fallback.is_some() {
            limit_files(server, Some(0));
            return;
        }
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).expect("the filler");
        let block = vec![0_u8; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            while file.write_all(&block[..size]).is_ok() {}
            size /= 2;
        }
    }

    /// Makes room again.
    pub(crate) fn free(&self, server: i32) {
        if self.fallback.is_some() {
            limit_files(server, None);
        } else {
            let _ = std::fs::remove_file(self.filler());
        }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.fallback.is_none() {
            let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        }
    }
}

fn limit_files(server: i32, current: Option<u64>) {
    let limit = Rlimit {
        current,
        maximum: None,
    };
    // A server that has ended has no limits to set.
    let _ = prlimit(Pid::from_raw(server), Resource::Fsize, limit);
}
