//! The system calls that a serving gateway makes (seccomp). Every other one answers EPERM.
//!
//! Not among them, whoever asks: running a program, making a process, tracing or reading another one, opening a
//! listener, raw sockets, mounting, namespaces, keyrings, BPF, io_uring, undoing what makes the process not dumpable,
//! and memory that can be executed. The list was found by running the tests under `strace`, and is by purpose here.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// What a configuration needs beyond serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// It runs programs (Landlock says which): processes, and what a program does while it loads.
    pub(super) programs: bool,
    /// It has a module of an HSM in it, which loads libraries and talks to devices as its vendor likes.
    pub(super) modules: bool,
}

/// Files, by descriptor and by name.
const FILES: &[i64] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same by the names that other architectures have never had.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Connections. There is no `listen`: both planes listen already.
const NETWORK: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// Memory, threads, time, randomness, who we are, the end.
const PROCESS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Answered by the other filter: libc then takes `clone`, whose flags a filter can see.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_umask,
    libc::SYS_uname,
];

/// Making a process, and what a program and its loader do.
const PROGRAMS: &[i64] = &[
    libc::SYS_chdir,
    libc::SYS_clone,
    libc::SYS_execve,
    libc::SYS_ioctl,
    libc::SYS_kill,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sched_setaffinity,
    libc::SYS_set_tid_address,
    libc::SYS_setpriority,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
#[cfg(target_arch = "x86_64")]
const OLDER_PROGRAMS: &[i64] =
    &[libc::SYS_arch_prctl, libc::SYS_fork, libc::SYS_getpgrp, libc::SYS_getrlimit, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_PROGRAMS: &[i64] = &[];

/// Vendors' modules: libraries loaded late, device files, memory and semaphores that they share with a daemon.
const MODULES: &[i64] = &[
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
];

/// `FIONBIO`, `FIOCLEX`, `FIONREAD`, `TCGETS`, `TIOCGWINSZ`: the same number on every architecture we build for.
const IOCTLS: [u64; 5] = [0x5421, 0x5451, 0x541b, 0x5401, 0x5413];
/// `PR_SET_NAME`, `PR_GET_NAME`, `PR_GET_DUMPABLE`, `PR_SET_VMA`.
const PRCTLS: [u64; 4] = [15, 16, 3, 0x5356_4d41];
/// `AF_UNIX`, `AF_INET`, `AF_INET6`; and `AF_NETLINK`, which resolving names asks for our addresses.
const FAMILIES: [u64; 3] = [1, 2, 10];
const NETLINK: u64 = 16;
/// `SOCK_STREAM`, `SOCK_DGRAM`, without the flags beside them.
const KINDS: [u64; 2] = [1, 2];
const KIND_MASK: u64 = 0xf;
const CLONE_THREAD: u64 = 0x1_0000;
const PROT_EXEC: u64 = 4;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// One condition: 32 bits of an argument equal a value.
fn is(argument: u8, value: u64) -> Built<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Built<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn rules(allowed: Allowed, own: u64) -> Built<Rules> {
    let mut rules = Rules::new();
    let one_of = |values: &[u64], argument| {
        values.iter().map(|value| SeccompRule::new(vec![is(argument, *value)?])).collect::<Built<Vec<_>>>()
    };
    rules.insert(libc::SYS_ioctl, one_of(&IOCTLS, 1)?);
    rules.insert(libc::SYS_prctl, one_of(&PRCTLS, 0)?);
    // Threads of this process, and no process.
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, CLONE_THREAD, CLONE_THREAD)?])?]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![masked(2, PROT_EXEC, 0)?])?]);
    }
    // Signals to ourselves: how a process aborts.
    rules.insert(libc::SYS_kill, one_of(&[own], 0)?);
    rules.insert(libc::SYS_tgkill, one_of(&[own], 0)?);
    // Limits are read, never set.
    let no_new = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![no_new])?]);
    let mut sockets = vec![SeccompRule::new(vec![is(0, NETLINK)?, is(2, 0)?])?];
    for family in FAMILIES {
        for kind in KINDS {
            sockets.push(SeccompRule::new(vec![is(0, family)?, masked(1, KIND_MASK, kind)?])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    rules.insert(libc::SYS_socketpair, one_of(&FAMILIES[..1], 0)?);
    // Whatever is here is allowed with all arguments.
    let mut whole = vec![FILES, OLDER, NETWORK, PROCESS];
    if allowed.programs {
        whole.extend([PROGRAMS, OLDER_PROGRAMS]);
    }
    if allowed.modules {
        whole.push(MODULES);
    }
    rules.extend(whole.into_iter().flatten().map(|call| (*call, Vec::new())));
    Ok(rules)
}

fn programs(allowed: Allowed, own: u64) -> Built<[BpfProgram; 2]> {
    let arch = TargetArch::try_from(ARCH)?;
    let errno = |number: i32| SeccompAction::Errno(u32::try_from(number).unwrap_or(1));
    // A filter has one answer. The stricter answer of two filters counts: this one says ENOSYS where the next allows.
    let only_clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let fall_back = SeccompFilter::new(only_clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    let list = SeccompFilter::new(rules(allowed, own)?, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok([fall_back.try_into()?, list.try_into()?])
}

/// Holds all threads of the process to the list, for good.
pub(super) fn restrict(allowed: Allowed) -> Result<(), &'static str> {
    let own = u64::from(std::process::id());
    let programs = programs(allowed, own).map_err(|_| "there is no list of system calls for this architecture")?;
    for program in programs {
        apply_filter_all_threads(&program)
            .map_err(|_| "the kernel does not filter system calls for all threads (CONFIG_SECCOMP_FILTER)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(programs: bool, modules: bool) -> Rules {
        rules(Allowed { programs, modules }, 7).unwrap()
    }

    #[test]
    fn what_takes_a_process_over_is_on_no_list() {
        for (programs, modules) in [(false, false), (true, false), (false, true), (true, true)] {
            let list = list(programs, modules);
            for call in [
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_listen,
                libc::SYS_mount,
                libc::SYS_unshare,
                libc::SYS_setns,
                libc::SYS_bpf,
                libc::SYS_keyctl,
                libc::SYS_io_uring_setup,
                libc::SYS_perf_event_open,
                libc::SYS_userfaultfd,
                libc::SYS_memfd_create,
                libc::SYS_pidfd_getfd,
                libc::SYS_execveat,
                libc::SYS_init_module,
                libc::SYS_reboot,
                libc::SYS_setuid,
                libc::SYS_seccomp,
            ] {
                assert!(!list.contains_key(&call), "{call} with programs {programs}, modules {modules}");
            }
        }
    }

    #[test]
    fn programs_are_run_only_where_one_is_named_and_memory_executed_only_where_needed() {
        let (serving, module, program) = (list(false, false), list(false, true), list(true, false));
        for list in [&serving, &module] {
            assert!(!list.contains_key(&libc::SYS_execve) && !list.contains_key(&libc::SYS_wait4));
            assert_eq!(list[&libc::SYS_clone].len(), 1, "threads only");
        }
        assert!(program.contains_key(&libc::SYS_execve) && program[&libc::SYS_clone].is_empty());
        assert_eq!([&serving, &module, &program].map(|list| list[&libc::SYS_mmap].len()), [1, 0, 0]);
        assert_eq!(serving[&libc::SYS_prctl].len(), PRCTLS.len());
    }
}
