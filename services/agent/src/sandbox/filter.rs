//! A filter of system calls: what no program of a task needs, and what has let many a program
//! out of its sandbox.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Calls that are refused.
const REFUSED: [i64; 44] = [
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and file systems.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    // Keys, which are the user's and not the sandbox's.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The clock.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Names of the machine.
    libc::SYS_sethostname,
];

/// On x86-64 the same calls have numbers of the x32 interface too.
const X32: i64 = if cfg!(target_arch = "x86_64") {
    0x4000_0000
} else {
    0
};

/// The filter; what comes from another architecture ends its process.
fn program() -> Result<BpfProgram, String> {
    let numbers = REFUSED.into_iter().flat_map(|n| [n, n | X32]);
    let rules: BTreeMap<_, _> = numbers.map(|n| (n, Vec::new())).collect();
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|e| format!("there is no filter of system calls here: {e}"))?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(TryInto::try_into)
        .map_err(|e| format!("the filter of system calls: {e}"))
}

/// The filter as the kernel reads it.
pub(crate) fn bytes() -> Result<Vec<u8>, String> {
    let program = program()?;
    let bytes = program.iter().flat_map(|i| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    });
    Ok(bytes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_can_be_made_and_is_one_that_the_kernel_takes() {
        let program = program().unwrap();
        assert!(program.len() > REFUSED.len() && program.len() < 4_096);
        assert_eq!(bytes().unwrap().len(), 8 * program.len());
        // On a thread that ends with the test.
        let applied = std::thread::spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            let refused = rustix::process::chroot("/").unwrap_err();
            (refused, std::fs::read("/proc/self/stat").is_ok())
        });
        assert_eq!(applied.join().unwrap(), (rustix::io::Errno::PERM, true));
    }
}
