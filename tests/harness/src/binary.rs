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

/// Test binaries are in `deps`, below the profile's directory.
fn beside_the_test() -> PathBuf {
    let exe = std::env::current_exe().expect("the test binary has a path");
    let deps = exe.parent().expect("it is in a directory");
    let profile = deps.parent().expect("that is in the profile's directory");
    profile.join("conductor")
}
