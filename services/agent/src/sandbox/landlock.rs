//! Landlock: rules that a process gives itself and what it starts, without any privilege.
//!
//! They say which files can be opened. What needs no opening (names, times, permissions of
//! the user's own files) they do not cover, nor UDP on most kernels.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

use super::{Bind, bubblewrap};
use crate::dirs::AttemptDirs;

/// The newest interface whose rights are meant; an older kernel keeps what it knows of them.
const NEWEST: ABI = ABI::V10;

/// What every program may read.
const SYSTEM: [&str; 10] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/dev",
    "/etc/passwd",
];
/// What programs look up of users and hosts.
const NAMES: [&str; 3] = ["/etc/group", "/etc/hosts", "/etc/resolv.conf"];
/// Devices that every program may write to.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
];

/// What a program may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Files and trees it may read and run.
    pub read: Vec<PathBuf>,
    /// Those it may also write.
    pub write: Vec<PathBuf>,
    /// Whether it may use the network.
    pub network: bool,
    /// TCP ports that it may connect to where it may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// What an attempt may reach.
pub(super) fn rules(dirs: &AttemptDirs, binds: &[Bind], network: bool) -> Rules {
    let own = [&dirs.workspace, &dirs.home, &dirs.tmp, &dirs.run];
    let bound = |writable| {
        let of_kind = binds.iter().filter(move |b| b.writable == writable);
        of_kind.map(|b| b.host.clone())
    };
    let system = SYSTEM.into_iter().chain(NAMES).chain(bubblewrap::ETC);
    let devices = DEVICES.map(PathBuf::from);
    Rules {
        read: system.map(PathBuf::from).chain(bound(false)).collect(),
        write: own
            .into_iter()
            .cloned()
            .chain(devices)
            .chain(bound(true))
            .collect(),
        network,
        ports: Vec::new(),
    }
}

/// What the kernel made of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enforced {
    /// Version of the kernel's interface, as far as it is known here.
    pub(crate) abi: u32,
    /// Whether all that was asked for is enforced.
    pub(crate) is_whole: bool,
}

/// Restricts the calling thread, and what it starts from now on.
pub(crate) fn enforce(rules: &Rules) -> Result<Enforced, String> {
    let failed = |e: &dyn std::fmt::Display| format!("Landlock does not restrict it: {e}");
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let mut ruleset = Ruleset::default()
        .handle_access(all)
        .and_then(|r| r.scope(BitFlags::from(Scope::AbstractUnixSocket) | Scope::Signal))
        .map_err(|e| failed(&e))?;
    if !rules.network {
        let net = AccessNet::from_all(NEWEST);
        ruleset = ruleset.handle_access(net).map_err(|e| failed(&e))?;
    }
    // What is not there needs no rule.
    let there = |paths: &[PathBuf]| -> Vec<PathBuf> {
        paths.iter().filter(|p| p.exists()).cloned().collect()
    };
    let closed = rules.ports.iter().filter(|_| !rules.network);
    let ports =
        closed.map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    let status = ruleset
        .create()
        .and_then(|r| r.add_rules(ports))
        .and_then(|r| r.add_rules(path_beneath_rules(there(&rules.read), read)))
        .and_then(|r| r.add_rules(path_beneath_rules(there(&rules.write), all)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|e| failed(&e))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Err(failed(&"this kernel does not have it")),
        (whole, LandlockStatus::Available { effective_abi, .. }) => Ok(Enforced {
            abi: effective_abi as u32,
            is_whole: whole == RulesetStatus::FullyEnforced,
        }),
        (_, status) => Err(failed(&format!("{status:?}"))),
    }
}

/// What the kernel makes of rules here: tried on a thread that ends with it.
pub(super) fn probe() -> Result<Enforced, String> {
    let rules = Rules {
        read: vec![Path::new("/").to_owned()],
        ..Rules::default()
    };
    let tried = std::thread::spawn(move || enforce(&rules)).join();
    tried.unwrap_or_else(|_| Err("the attempt to use it failed".to_owned()))
}
