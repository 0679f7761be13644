"""Which system calls a sandbox may make: the one source of every filter.

tools/seccomp.py writes the filters of `TABLES` into csrc/seccomp_*.h, from where the C core takes them; what a policy
asks for beyond them is compiled when a plan is (`program`). What no rule names is let through; what has no name, for it
is newer than all that was looked at, is unknown: ENOSYS, on which C libraries fall back. See docs/policy.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping

import attrs

from layerrun.errors import UsageError
from layerrun.runtime.bpf import Step, Test, assemble, to_bytes
from layerrun.syscalls import numbers

__all__ = ["RULES", "TABLES", "Rule", "filter_word", "program", "verdicts"]

# What a filter can depend on: each lifts the rules that name it.
_LIFTING = frozenset({"bpf", "io-uring", "keyring", "nesting", "perf", "ptrace", "userfaultfd"})

# The filters that lie in the C core, by the features that they lift rules for.
TABLES: Mapping[str, frozenset[str]] = {
    "default": frozenset({"ptrace"}),
    "strict": frozenset(),
    "nesting": frozenset({"ptrace", "nesting"}),
}

_REFUSED, _UNKNOWN = errno.EPERM, errno.ENOSYS

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; CLONE_NEWTIME is a signal's number for clone(2)
_NEW_NAMESPACES = 0x7E020000
_NEW_TIME = 0x80


@attrs.frozen
class Rule:
    """What becomes of some calls: an errno, or a test of an argument; why; and the feature that lifts it."""

    calls: str
    verdict: int | Test
    why: str
    lifted: str = ""


RULES = (
    # Flags of clone3 lie behind a pointer: C libraries are made to fall back to clone.
    Rule("clone3", _UNKNOWN, "its flags cannot be looked at", "nesting"),
    Rule("clone", Test(_REFUSED, 0, bits=_NEW_NAMESPACES), "new namespaces", "nesting"),
    Rule("unshare", Test(_REFUSED, 0, bits=_NEW_NAMESPACES | _NEW_TIME), "new namespaces", "nesting"),
    Rule("setns", _REFUSED, "other namespaces", "nesting"),
    Rule("mount umount2 pivot_root", _REFUSED, "mounts", "nesting"),
    # The same by the new interface: flatpak had forgotten it (CVE-2021-41133).
    Rule(
        "open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr",
        _REFUSED,
        "mounts",
        "nesting",
    ),
    Rule("statmount listmount", _UNKNOWN, "mounts, of other namespaces too", "nesting"),
    Rule("open_by_handle_at", _REFUSED, "files that no path leads to (the docker breakout of 2014)"),
    Rule("keyctl add_key request_key", _UNKNOWN, "keys are of the kernel, or of a user", "keyring"),
    # TIOCSTI types into a terminal (CVE-2017-5226), TIOCLINUX pastes into a console.
    Rule("ioctl", Test(_REFUSED, 1, one_of=(0x5412, 0x541C)), "what types into terminals"),
    Rule("ptrace process_vm_readv process_vm_writev kcmp", _REFUSED, "other processes' memory", "ptrace"),
    Rule("pidfd_getfd", _REFUSED, "other processes' descriptors"),
    Rule(
        "reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff acct quotactl "
        "quotactl_fd syslog settimeofday clock_settime vhangup iopl ioperm",
        _REFUSED,
        "the machine",
    ),
    Rule("bpf", _REFUSED, "a wide kernel surface with a long record of bugs", "bpf"),
    Rule("perf_event_open", _REFUSED, "a wide kernel surface with a long record of bugs", "perf"),
    Rule("userfaultfd", _UNKNOWN, "it makes bugs of the kernel easy to use", "userfaultfd"),
    Rule("io_uring_setup io_uring_enter io_uring_register", _UNKNOWN, "past this filter", "io-uring"),
    Rule("fanotify_init", _REFUSED, "what others do with files"),
    Rule("vmsplice", _REFUSED, "pages that are shared with pipes; a record of bugs, and hardly a user"),
    Rule("modify_ldt", _UNKNOWN, "for 16-bit programs; a record of bugs (CVE-2015-5157, CVE-2017-17053)"),
    # Let through: the query; Linux with old version numbers (UNAME26), 32-bit names, fixed addresses for debuggers.
    Rule(
        "personality",
        Test(
            _REFUSED,
            0,
            none_of=(0xFFFFFFFF, *(a | b | c for a in (0, 0x40000) for b in (0, 0x20000) for c in (0, 8))),
        ),
        "memory at address 0, data that can be executed",
    ),
    # AF_UNIX, INET, INET6, NETLINK, PACKET. AF_VSOCK leads to the machine that this one runs in, past any network
    # namespace; of the others (ALG, BLUETOOTH, CAN, RDS, TIPC, …) most are loaded into the kernel by asking.
    Rule(
        "socket socketpair",
        Test(errno.EAFNOSUPPORT, 0, none_of=(1, 2, 10, 16, 17)),
        "rare protocols with a long record of bugs",
    ),
    Rule(
        "uselib _sysctl create_module get_kernel_syms query_module nfsservctl lookup_dcookie afs_syscall tuxcall "
        "security vserver getpmsg putpmsg epoll_ctl_old epoll_wait_old get_thread_area set_thread_area",
        _UNKNOWN,
        "obsolete: new kernels do not have them",
    ),
)

# Without these the process that stands for layerrun inside could not do its work, or the command not begin.
_NEEDED = frozenset(
    "accept4 access brk chdir clone close close_range dup2 dup3 execve exit exit_group fcntl fstat getcwd getpid "
    "getsid ioctl kill mmap munmap newfstatat open openat poll ppoll prctl read recvmsg rt_sigaction rt_sigprocmask "
    "rt_sigreturn sendmsg setpgid setrlimit prlimit64 setsid signalfd4 umask vfork wait4 write".split()
)


def verdicts(
    arch: str, features: Collection[str], allow: Iterable[str] = (), deny: Iterable[str] = ()
) -> dict[int, int | Test]:
    """Return the verdict for each number that has a name: an errno, 0 for "let through", or a `Test`.

    ``allow`` and ``deny`` are names of calls, over all rules; names that ``arch`` lacks change nothing.
    """
    known = numbers(arch)
    by_name: dict[str, int | Test] = dict.fromkeys(known, 0)
    for rule in RULES:
        if not rule.lifted or rule.lifted not in features:
            by_name |= dict.fromkeys(rule.calls.split(), rule.verdict)
    by_name |= dict.fromkeys(allow, 0)
    for name in deny:
        if name in _NEEDED:
            raise UsageError(f"the system call {name!r} cannot be denied", hint="no start would work without")
        if not isinstance(by_name.get(name), int) or not by_name[name]:
            by_name[name] = _REFUSED
    return {number: by_name[name] for name, number in known.items()}


def program(
    arch: str, features: Collection[str], allow: Iterable[str] = (), deny: Iterable[str] = ()
) -> list[Step]:
    """Return the filter for ``arch`` as BPF instructions; the arguments are those of `verdicts`."""
    return assemble(arch, verdicts(arch, features, allow, deny), _UNKNOWN)


def filter_word(features: Collection[str], allow: Collection[str], deny: Collection[str]) -> str:
    """Return what a plan's ``seccomp`` says: the name of one of `TABLES`, or ``bpf:`` and a program in hexadecimal."""
    wanted = _LIFTING.intersection(features)
    if not allow and not deny:
        for name, lifted in TABLES.items():
            if lifted == wanted:
                return name
    return "bpf:" + to_bytes(program(os.uname().machine, wanted, allow, deny)).hex()
