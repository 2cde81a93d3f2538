//! Programs that are installed beside the system's: what of the machine they need to run.

use std::fs;
use std::path::{Path, PathBuf};

/// Links followed before it is a circle.
const HOPS_MAX: usize = 16;

/// Directories that hold nothing but programs, by the usual names.
const OF_PROGRAMS: [&str; 3] = ["bin", "sbin", ".bin"];

/// Where a program is, each link on the way to it, and the file itself: nothing where it is not
/// there. A bare name is looked up on `path`.
pub(super) fn hops(program: &Path, path: &str) -> Vec<PathBuf> {
    let found = if program.is_absolute() {
        Some(program.to_owned())
    } else {
        let candidates = std::env::split_paths(path).map(|dir| dir.join(program));
        candidates.into_iter().find(|c| c.is_file())
    };
    let mut hops: Vec<PathBuf> = found.filter(|f| f.exists()).into_iter().collect();
    while let Some(last) = hops.last().filter(|_| hops.len() < HOPS_MAX) {
        let Ok(to) = fs::read_link(last) else { break };
        let next = last.parent().unwrap_or(Path::new("/")).join(to);
        hops.push(next);
    }
    if let Some(real) = hops.last().and_then(|last| fs::canonicalize(last).ok()) {
        hops.push(real);
    }
    hops
}

/// The trees that a program needs, as far as the system's own do not hold it: the packages it is
/// one of, its directory where that holds programs alone, or else just the file.
pub(super) fn trees(hops: &[PathBuf]) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    for hop in hops.iter().map(|hop| plain(hop)) {
        if hop.starts_with("/usr") || out.iter().any(|tree| hop.starts_with(tree)) {
            continue;
        }
        let mut above: Vec<&Path> = hop.ancestors().skip(1).collect();
        above.reverse();
        let packages = above.iter().find(|dir| dir.ends_with("node_modules"));
        let programs = hop.parent().filter(|dir| {
            let name = dir.file_name().and_then(|n| n.to_str());
            name.is_some_and(|name| OF_PROGRAMS.contains(&name))
        });
        let tree = packages.copied().or(programs).unwrap_or(&hop);
        out.push(tree.to_owned());
    }
    out
}

/// Without `.` and `..`, by name alone.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hops: &[&str]) -> Vec<String> {
        let hops: Vec<PathBuf> = hops.iter().map(PathBuf::from).collect();
        let trees = trees(&hops);
        trees.iter().map(|t| t.display().to_string()).collect()
    }

    #[test]
    fn what_the_system_has_needs_nothing() {
        assert_eq!(
            of(&["/usr/bin/claude", "/usr/lib/node_modules/c/cli.js"]),
            [""; 0]
        );
        assert_eq!(of(&[]), [""; 0]);
    }

    #[test]
    fn packages_are_seen_whole() {
        let hops = [
            "/w/node_modules/.bin/claude",
            "/w/node_modules/.bin/../@a/claude/cli.js",
        ];
        assert_eq!(of(&hops), ["/w/node_modules"]);
        let hops = [
            "/root/.nvm/v22/bin/claude",
            "/root/.nvm/v22/bin/../lib/node_modules/c/node_modules/d/cli.js",
        ];
        assert_eq!(
            of(&hops),
            ["/root/.nvm/v22/bin", "/root/.nvm/v22/lib/node_modules"]
        );
    }

    #[test]
    fn of_a_home_no_more_is_seen_than_the_program() {
        assert_eq!(of(&["/home/me/claude"]), ["/home/me/claude"]);
        assert_eq!(of(&["/home/me/bin/claude"]), ["/home/me/bin"]);
    }

    #[test]
    fn links_are_followed_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("real"), "").unwrap();
        std::os::unix::fs::symlink("../real", root.join("bin/tool")).unwrap();
        let path = root.join("bin").display().to_string();
        let found = hops(Path::new("tool"), &path);
        assert_eq!(found.first(), Some(&root.join("bin/tool")));
        assert_eq!(found.last(), Some(&root.join("real")));
        assert_eq!(trees(&found), [root.join("bin"), root.join("real")]);
        assert!(hops(Path::new("no-such-tool"), &path).is_empty());
    }
}
