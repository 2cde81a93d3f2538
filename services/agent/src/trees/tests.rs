//! What a program closed is closed for whoever is not root; tests often run as root, so that they give
//! up what that may do, on a thread of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::*;

/// Does something as one for whom the modes of files hold.
fn unprivileged<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let act = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective
            .remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, sets).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// Does something where a system call fails: with these arguments, or always.
pub(crate) fn refusing<T: Send>(
    call: i64,
    with: Vec<SeccompRule>,
    act: impl FnOnce() -> T + Send,
) -> T {
    let rules = BTreeMap::from([(call, with)]);
    let refuse = SeccompAction::Errno(libc::EIO.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    let act = || {
        seccompiler::apply_filter(&filter).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// Does something where nothing within a directory that was opened can be removed, as if it was
/// killed before it could.
pub(crate) fn killed_while_it_removes<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let by_path = u64::from(libc::AT_FDCWD.cast_unsigned());
    let (size, differs) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Ne);
    let within = SeccompCondition::new(0, size, differs, by_path).unwrap();
    let rule = SeccompRule::new(vec![within]).unwrap();
    refusing(libc::SYS_unlinkat, vec![rule], act)
}

/// A tree with a large file in a directory that can do no more than this.
fn closed(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    fs::create_dir_all(tree.join("a/closed/b")).unwrap();
    fs::write(tree.join("a/closed/b/large"), vec![1; 1 << 20]).unwrap();
    fs::set_permissions(tree.join("a/closed"), Permissions::from_mode(mode)).unwrap();
    (base, tree)
}

#[test]
fn what_a_program_closed_is_counted() {
    for mode in [0, 0o300, 0o600] {
        let (_base, tree) = closed(mode);
        let bytes = unprivileged(|| size_on_disk(&tree));
        assert!(bytes >= 1 << 20, "{mode:o}: {bytes}");
    }
}

#[test]
fn what_a_program_closed_is_removed() {
    for mode in [0, 0o300, 0o500, 0o600] {
        let (_base, tree) = closed(mode);
        unprivileged(|| remove(&tree)).unwrap();
        assert!(!tree.exists(), "{mode:o}");
        remove(&tree).unwrap();
        let (base, tree) = closed(0o700);
        fs::write(tree.join("file"), "").unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(mode)).unwrap();
        unprivileged(|| remove_file(&tree, "file")).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(mode)).unwrap();
        let trash = base.path().join("trash");
        unprivileged(|| discard(&tree, &trash)).unwrap();
        assert!(!tree.exists(), "{mode:o}");
        let entry = fs::read_dir(&trash).unwrap().next().unwrap().unwrap();
        assert!(!entry.path().join("file").exists());
        assert!(entry.path().join("a/closed/b/large").exists());
        discard(&tree, &trash).unwrap();
    }
}

#[test]
fn links_are_not_followed() {
    let (base, tree) = closed(0);
    let outside = base.path().join("outside");
    fs::create_dir_all(outside.join("in")).unwrap();
    fs::write(outside.join("in/precious"), vec![1; 1 << 20]).unwrap();
    fs::set_permissions(outside.join("in"), Permissions::from_mode(0o500)).unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    for through in ["link", "link/in"] {
        unclose(&tree, &tree.join(through)).unwrap_err();
    }
    let bytes = unprivileged(|| size_on_disk(&tree));
    assert!(bytes < 2 << 20, "{bytes}");
    unprivileged(|| remove(&tree)).unwrap();
    let mode = fs::metadata(outside.join("in")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o500);
    assert!(outside.join("in/precious").exists());
}
