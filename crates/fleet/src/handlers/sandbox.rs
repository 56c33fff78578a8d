//! What a process does to itself before it becomes a handler: mounts, limits, capabilities, Landlock, seccomp.
//!
//! Only the helper process calls this, while it has one thread. Everything fails closed: a handler never runs with less
//! than its manifest says.

use super::manifest::{Limits, Sandbox};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// `libc` does not have it for every target.
const KEXEC_FILE_LOAD: i64 = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// System calls that no handler may use unless its manifest names them. They reach beyond its files: the kernel, other
/// processes, mounts, clocks, keys.
const REFUSED: &[(&str, i64)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("adjtimex", libc::SYS_adjtimex),
    ("bpf", libc::SYS_bpf),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("clock_settime", libc::SYS_clock_settime),
    ("delete_module", libc::SYS_delete_module),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("init_module", libc::SYS_init_module),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", KEXEC_FILE_LOAD),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("quotactl", libc::SYS_quotactl),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("vhangup", libc::SYS_vhangup),
];

/// The bit of system calls of the x32 architecture, which has the numbers of x86-64 otherwise.
const X32: i64 = 0x4000_0000;

/// Whether a sandbox can be made: one clause for people, if not.
pub(super) fn validate(sandbox: &Sandbox) -> Result<(), String> {
    for name in &sandbox.capabilities {
        CapabilitySet::from_name(name)
            .ok_or(format!("there is no capability {name}; write it without CAP_"))?;
    }
    if let Some(name) = sandbox.syscalls.iter().find(|name| !REFUSED.iter().any(|(known, _)| known == name)) {
        return Err(format!("the system call {name} is not among those that are refused; remove it"));
    }
    match sandbox.read.iter().chain(&sandbox.write).find(|path| !path.is_absolute()) {
        Some(path) => Err(format!("{} is not an absolute path; write it from / on", path.display())),
        None => Ok(()),
    }
}

/// Private mounts: an own `/tmp` and `/dev/shm`, `/proc` with the handler's processes only, and an empty `/run`. Needs a
/// mount namespace of its own.
pub(super) fn mounts(sandbox: &Sandbox, limits: &Limits) -> Result<(), String> {
    let failed = |what: &'static str| move |e: Errno| format!("{what} cannot be mounted ({e})");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("a private /"))?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let memory = |mode: &str| {
        CString::new(format!("size={}m,mode={mode},nr_inodes=65536", limits.tmp)).unwrap_or_default()
    };
    mount("tmpfs", "/tmp", "tmpfs", quiet, memory("1777").as_c_str()).map_err(failed("/tmp"))?;
    if Path::new("/dev/shm").is_dir() {
        let flags = quiet | MountFlags::NOEXEC;
        mount("tmpfs", "/dev/shm", "tmpfs", flags, memory("1777").as_c_str()).map_err(failed("/dev/shm"))?;
    }
    if !sandbox.services && Path::new("/run").is_dir() {
        let flags = quiet | MountFlags::NOEXEC;
        mount("tmpfs", "/run", "tmpfs", flags, memory("755").as_c_str()).map_err(failed("/run"))?;
    }
    mount("proc", "/proc", "proc", quiet | MountFlags::NOEXEC, None).map_err(failed("/proc"))
}

/// Limits of this process and its children. `alone` if no cgroup counts memory.
pub(super) fn limits(limits: &Limits, alone: bool) -> Result<(), String> {
    let mib = |n: u64| Some(n << 20);
    let mut all = vec![
        (Resource::Core, Some(0)),
        (Resource::Fsize, mib(limits.file)),
        (Resource::Nofile, Some(limits.files)),
        (Resource::Nproc, Some(limits.processes)),
        (Resource::Memlock, mib(1)),
    ];
    if alone {
        all.push((Resource::As, mib(limits.memory)));
    }
    for (resource, n) in all {
        setrlimit(resource, Rlimit { current: n, maximum: n })
            .map_err(|e| format!("the limit {resource:?} cannot be set ({e})"))?;
    }
    Ok(())
}

/// Gives up all capabilities but these for whatever is executed later, and with them what set-id programs would gain.
pub(super) fn capabilities(sandbox: &Sandbox) -> Result<(), String> {
    let kept = sandbox.capabilities.iter().filter_map(|name| CapabilitySet::from_name(name));
    let kept = kept.fold(CapabilitySet::empty(), |all, one| all | one);
    for capability in CapabilitySet::all().iter().filter(|capability| !kept.contains(*capability)) {
        match remove_capability_from_bounding_set(capability) {
            // An older kernel does not know all.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(format!("capabilities cannot be given up ({e})")),
        }
    }
    set_no_new_privs(true).map_err(|e| format!("no-new-privileges cannot be set ({e})"))
}

/// Confines this process to its files. Returns whether the kernel also governs truncation by path.
pub(super) fn landlock(sandbox: &Sandbox, own: &[BorrowedFd<'_>]) -> Result<bool, String> {
    let failed =
        |e: &dyn std::fmt::Display| format!("Landlock cannot be set up ({e}); use a kernel that has it");
    let abi = ABI::V6;
    let (read, all) = (AccessFs::from_read(abi), AccessFs::from_all(abi));
    let write = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(|e| failed(&e))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .map_err(|e| failed(&e))?;
    let mut allow = |fd: PathFd, access: BitFlags<AccessFs>, is_dir: bool| {
        let access = if is_dir { access } else { access & AccessFs::from_file(abi) };
        (&mut ruleset).add_rule(PathBeneath::new(fd, access)).map(drop).map_err(|e| failed(&e))
    };
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        if let Ok(fd) = PathFd::new(path) {
            allow(fd, device, false)?;
        }
    }
    for (paths, access) in [(&sandbox.read, read), (&sandbox.write, write | read)] {
        for path in paths {
            match PathFd::new(path) {
                Ok(fd) => allow(fd, access, path.is_dir())?,
                // Not every machine has /lib32. What it must write has to be there.
                Err(_) if access == read => {}
                Err(e) => return Err(format!("{} cannot be written ({e}); make it", path.display())),
            }
        }
    }
    for path in ["/tmp", "/dev/shm"] {
        if let Ok(fd) = PathFd::new(path) {
            allow(fd, write | read, true)?;
        }
    }
    for fd in own {
        // Memory has no path and is not governed. If this fails for a file, the handler cannot open it.
        let _ = (&mut ruleset).add_rule(PathBeneath::new(fd, read & AccessFs::from_file(abi)));
    }
    let status = ruleset.restrict_self().map_err(|e| failed(&e))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("Landlock is not enabled in this kernel; add lsm=landlock to its command line".into());
    }
    let truncate = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Truncate)
        .is_ok();
    Ok(truncate)
}

/// What Landlock of this kernel does not govern, beyond what the other layers make up for: clauses for people. Without Landlock itself no
/// handler runs.
pub(super) fn shortfalls() -> impl Iterator<Item = &'static str> {
    let ruleset = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let ioctl = ruleset().handle_access(AccessFs::IoctlDev).is_err().then_some(
        "the kernel does not govern what handlers do to devices that they may open; Linux 6.10 does",
    );
    let scope = ruleset().scope(Scope::from_all(ABI::V6)).is_err().then_some(
        "handlers with the host's network reach abstract sockets of its services; Linux 6.12 keeps them from that",
    );
    ioctl.into_iter().chain(scope)
}

/// Whether this kernel has Landlock, without which no handler runs. Confines nothing.
#[must_use]
pub fn has_landlock() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(ABI::V1)).is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// Whether this kernel filters system calls, without which no handler runs.
#[must_use]
pub fn has_seccomp() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

/// Refuses the system calls that no handler needs: EPERM, or ENOSYS where libraries then use an older call.
pub(super) fn seccomp(sandbox: &Sandbox, truncate: bool) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("seccomp cannot be set up ({e})");
    let named = |name: &str| sandbox.syscalls.iter().any(|allowed| allowed == name);
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut refuse = |number: i64, rules: Vec<SeccompRule>| {
        if cfg!(target_arch = "x86_64") {
            refused.insert(number | X32, rules.clone());
        }
        refused.insert(number, rules);
    };
    for (_, number) in REFUSED.iter().filter(|(name, _)| !named(name)) {
        refuse(*number, Vec::new());
    }
    if !truncate {
        // Landlock before Linux 6.2 does not see it.
        refuse(libc::SYS_truncate, Vec::new());
    }
    let when = |index, value: u64| {
        let is = SeccompCmpOp::MaskedEq(value);
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value)
            .and_then(|c| SeccompRule::new(vec![c]))
    };
    if !named("unshare") {
        let flags = [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
        ];
        let rules: Result<Vec<_>, _> =
            flags.iter().map(|flag| when(0, u64::from(flag.cast_unsigned()))).collect();
        refuse(libc::SYS_clone, rules.map_err(|e| failed(&e))?);
    }
    let arch = std::env::consts::ARCH.try_into().map_err(|e| failed(&e))?;
    let apply = |rules, errno: i32| {
        let refusal = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch);
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|e| failed(&e))?;
        apply_filter(&program).map_err(|e| failed(&e))
    };
    apply(refused, libc::EPERM)?;
    if !named("unshare") {
        // Its flags are in memory, where a filter cannot see them.
        apply(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    }
    Ok(())
}
