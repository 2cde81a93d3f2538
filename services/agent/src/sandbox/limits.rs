//! What an attempt may use up, and the part of it that a process keeps by itself.

use conductor_protocol::terms::{SandboxKind, SandboxSpec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Processes and threads of an attempt that does not say, in a sandbox.
const PROCESSES_DEFAULT: u32 = 1_024;
/// Largest file then.
const FILE_SIZE_DEFAULT: u64 = 4 << 30;
/// Memory then, where the kernel counts it.
const MEMORY_DEFAULT: u64 = 4 << 30;
/// Open files then.
const FILES_DEFAULT: u64 = 4_096;
/// Files in shared memory, where it has one of its own.
const SHM: u64 = 64 << 20;

/// The limits of one attempt. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all its processes together.
    pub memory: Option<u64>,
    /// Whether the task asked for that limit.
    pub is_memory_asked: bool,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes, and where the kernel counts them threads.
    pub processes: Option<u32>,
    /// Largest file.
    pub file_size: Option<u64>,
    /// All its files together.
    pub disk: Option<u64>,
    /// Open files of a process.
    pub files: Option<u64>,
}

impl Limits {
    /// What a task asks for, and the usual limits where it is boxed in.
    pub fn of(asked: Option<&SandboxSpec>, kind: SandboxKind) -> Self {
        let is_boxed = kind != SandboxKind::None;
        let memory = asked.and_then(|s| s.memory).map(|b| b.0);
        let processes = asked.and_then(|s| s.processes);
        let file_size = asked.and_then(|s| s.file_size).map(|b| b.0);
        let file_size = file_size.or(is_boxed.then_some(FILE_SIZE_DEFAULT));
        let disk = asked.and_then(|s| s.disk).map(|b| b.0);
        Self {
            memory: memory.or(is_boxed.then_some(MEMORY_DEFAULT)),
            is_memory_asked: memory.is_some(),
            cpu_millis: asked.and_then(|s| s.cpu_millis),
            processes: processes.or(is_boxed.then_some(PROCESSES_DEFAULT)),
            // The kernel holds one file to it, whoever looks at their sum.
            file_size: file_size.into_iter().chain(disk).min(),
            disk,
            files: is_boxed.then_some(FILES_DEFAULT),
        }
    }

    /// What its shared memory may hold, which is no directory that the agent sees.
    pub(super) fn shm(&self) -> u64 {
        self.disk.map_or(SHM, |disk| disk.min(SHM))
    }

    /// What each process is limited to by itself. `has_own_uid` says that no other process has
    /// its user: only then the kernel counts the right ones.
    pub fn rlimits(&self, has_cgroup: bool, has_own_uid: bool) -> Rlimits {
        if *self == Self::default() {
            return Rlimits::default();
        }
        Rlimits {
            core: Some(0),
            files: self.files,
            file_size: self.file_size,
            processes: self.processes.map(u64::from).filter(|_| has_own_uid),
            // Not the address space: runtimes reserve far more of it than they use.
            data: self.memory.filter(|_| self.is_memory_asked && !has_cgroup),
        }
    }
}

/// Limits of a process, inherited by what it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimits {
    /// Size of a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
    /// Open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Largest file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// Processes and threads of its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Memory it has allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<u64>,
}

impl Rlimits {
    /// Sets them for this process; never above what it may have.
    pub(crate) fn apply(&self) -> Result<(), String> {
        let all = [
            (Resource::Core, self.core, "size of dumps"),
            (Resource::Nofile, self.files, "open files"),
            (Resource::Fsize, self.file_size, "size of files"),
            (Resource::Nproc, self.processes, "processes"),
            (Resource::Data, self.data, "memory"),
        ];
        for (resource, wanted, name) in all {
            let Some(wanted) = wanted else { continue };
            let limit = Some(wanted.min(most(resource)));
            let new = Rlimit {
                current: limit,
                maximum: limit,
            };
            setrlimit(resource, new).map_err(|e| format!("its limit of {name}: {e}"))?;
        }
        Ok(())
    }
}

/// The most that this process may give itself.
pub(super) fn most(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::human::ByteSize;

    #[test]
    fn what_is_not_boxed_in_has_the_limits_it_asks_for() {
        assert_eq!(Limits::of(None, SandboxKind::None), Limits::default());
        assert_eq!(Limits::default().rlimits(false, true), Rlimits::default());
        let asked = SandboxSpec {
            file_size: Some(ByteSize(1 << 20)),
            ..SandboxSpec::default()
        };
        let limits = Limits::of(Some(&asked), SandboxKind::None);
        let rlimits = limits.rlimits(false, false);
        assert_eq!((rlimits.file_size, rlimits.files), (Some(1 << 20), None));
    }

    #[test]
    fn no_file_is_larger_than_all_of_them_may_be() {
        let limits = |file_size: Option<u64>, kind| {
            let asked = SandboxSpec {
                disk: Some(ByteSize(1 << 20)),
                file_size: file_size.map(ByteSize),
                ..SandboxSpec::default()
            };
            Limits::of(Some(&asked), kind)
        };
        for kind in [SandboxKind::None, SandboxKind::Bubblewrap] {
            let usual = limits(None, kind);
            assert_eq!(
                (usual.disk, usual.file_size),
                (Some(1 << 20), Some(1 << 20))
            );
            assert_eq!(limits(Some(1 << 10), kind).file_size, Some(1 << 10));
            assert_eq!(limits(Some(1 << 30), kind).file_size, Some(1 << 20));
        }
    }

    #[test]
    fn memory_is_limited_by_a_process_itself_only_where_asked_and_nobody_else_does() {
        let asked = SandboxSpec {
            memory: Some(ByteSize(64 << 20)),
            ..SandboxSpec::default()
        };
        let limits = Limits::of(Some(&asked), SandboxKind::Bubblewrap);
        assert_eq!(limits.rlimits(false, false).data, Some(64 << 20));
        assert_eq!(limits.rlimits(true, false).data, None);
        let usual = Limits::of(None, SandboxKind::Bubblewrap);
        assert_eq!(
            (usual.memory, usual.rlimits(false, false).data),
            (Some(4 << 30), None)
        );
    }

    #[test]
    fn processes_are_counted_by_the_kernel_only_for_a_user_of_their_own() {
        let limits = Limits::of(None, SandboxKind::Bubblewrap);
        assert_eq!(limits.rlimits(false, false).processes, None);
        assert_eq!(limits.rlimits(false, true).processes, Some(1_024));
    }
}
