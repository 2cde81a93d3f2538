//! The binary under test, as built from this very tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `conductor` binary, brought up to date first: `cargo test --package …` would
/// otherwise run against an old one.
pub fn conductor() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "conductor",
            "--bin",
            "conductor",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let done = build.current_dir(workspace()).status().expect("cargo runs");
        assert!(done.success(), "the conductor binary does not build");
        let binary = target_dir().join("conductor");
        assert!(binary.is_file(), "{} is not there", binary.display());
        binary
    })
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace is there")
}

/// Where this profile's binaries are: two above the test binary, which is in `deps`.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the test binary has a path");
    let deps = exe.parent().expect("it is in a directory");
    deps.parent()
        .expect("that is in the profile's directory")
        .to_owned()
}
