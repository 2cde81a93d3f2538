//! The binary under test, as cargo built it for the running test.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The `conductor` binary.
pub fn conductor() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // Cargo names it to tests of its package; without cargo it is where cargo put it.
        let named = std::env::var_os("CARGO_BIN_EXE_conductor").map(PathBuf::from);
        let binary = named.unwrap_or_else(beside_the_test);
        assert!(
            binary.is_file(),
            "{} is not there: run `cargo test`",
            binary.display()
        );
        binary
    })
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace is there")
}

/// Programs are in the profile's directory, test binaries in `deps` below it.
fn beside_the_test() -> PathBuf {
    let exe = std::env::current_exe().expect("the test binary has a path");
    let dir = exe.parent().expect("it is in a directory");
    let profile = if dir.ends_with("deps") {
        dir.parent().expect("that is in the profile's directory")
    } else {
        dir
    };
    profile.join("conductor")
}

/// A directory with the Python packages of a requirements file, fetched once and checked
/// by hash.
pub fn python_packages(requirements: &str) -> PathBuf {
    let file = workspace().join(requirements);
    let text = std::fs::read_to_string(&file).expect("the requirements file");
    // A directory of its own for every version of the file.
    let sum = text
        .bytes()
        .fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let profile = conductor().parent().expect("it is in a directory");
    let packages = profile.join(format!("python-{sum:016x}"));
    if packages.is_dir() {
        return packages;
    }
    let part = profile.join(format!("python-{sum:016x}-{}", std::process::id()));
    let done = std::process::Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args(["--require-hashes", "--requirement"])
        .arg(&file)
        .arg("--target")
        .arg(&part)
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .status();
    let is_there = done.is_ok_and(|status| status.success());
    assert!(
        is_there,
        "pip cannot fetch {requirements}; are python3-pip and the network there?"
    );
    // Another test may have been quicker.
    if std::fs::rename(&part, &packages).is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    packages
}

/// A directory with the npm packages that `folder`'s lock file pins, installed once for the
/// machine (they are large); `None` where there is no npm, or it cannot.
///
/// # Panics
/// Where `CI` is set and they are not to be had: nothing is left out where everything is tested.
pub fn npm_packages(folder: &str) -> Option<PathBuf> {
    let is_ci = std::env::var_os("CI").is_some();
    unless_missing(npm_installed(folder), is_ci, folder)
}

fn unless_missing(found: Option<PathBuf>, is_ci: bool, folder: &str) -> Option<PathBuf> {
    assert!(
        found.is_some() || !is_ci,
        "npm must install {folder} where everything is tested; are npm and the network there?"
    );
    found
}

fn npm_installed(folder: &str) -> Option<PathBuf> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = LOCK.lock().ok()?;
    let from = workspace().join(folder);
    let lock = std::fs::read(from.join("package-lock.json")).ok()?;
    let sum = lock.iter().fold(0_u64, |sum, b| {
        sum.wrapping_mul(31).wrapping_add((*b).into())
    });
    let cache = conductor_nats::locate::cache_path();
    let packages = cache.parent()?.with_file_name(format!("npm-{sum:016x}"));
    if packages.join("node_modules").is_dir() {
        return Some(packages);
    }
    let part = packages.with_file_name(format!("npm-{sum:016x}-{}", std::process::id()));
    std::fs::create_dir_all(&part).ok()?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), part.join(file)).ok()?;
    }
    let done = std::process::Command::new("npm")
        .args(["ci", "--silent", "--no-audit", "--no-fund"])
        .current_dir(&part)
        .stdin(std::process::Stdio::null())
        .status();
    let is_there = done.is_ok_and(|status| status.success());
    if !is_there || std::fs::rename(&part, &packages).is_err() {
        // Nothing half installed is left; another process may have been quicker.
        let _ = std::fs::remove_dir_all(&part);
    }
    packages.is_dir().then_some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_npm_cannot_install_is_left_out() {
        assert_eq!(unless_missing(None, false, "a"), None);
        let found = Some(PathBuf::from("b"));
        assert_eq!(unless_missing(found.clone(), true, "a"), found);
    }

    #[test]
    #[should_panic(expected = "npm must install a")]
    fn where_everything_is_tested_nothing_is_left_out() {
        unless_missing(None, true, "a");
    }
}
