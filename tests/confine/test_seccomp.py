"""The filters of system calls: as they are checked in, and beside what libseccomp makes of the same rules."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys

import pytest
from support import bpf

from layerrun.errors import UsageError
from layerrun.runtime import bpf as compiler
from layerrun.runtime import seccomp
from layerrun.runtime.bpf import assemble, to_bytes
from layerrun.syscalls import ARCHES, check, numbers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENOSYS = 38

# Beside the arrays in the C core: what a plan would bring.
OTHERS = {
    "everything": (frozenset("bpf io-uring keyring nesting perf ptrace userfaultfd".split()), (), ()),
    "words": (frozenset(["ptrace"]), ("mount", "bpf", "socket"), ("chmod", "fchmodat2", "ptrace", "clone3")),
    "scattered": (frozenset(), (), tuple(sorted(numbers("x86_64"))[::2])),
}
FILTERS = {name: (features, (), ()) for name, features in seccomp.TABLES.items()} | OTHERS

# What libseccomp of 2022 has no name for.
NEWER = {"uretprobe", "uprobe"}


def asked(name):
    features, allow, deny = FILTERS[name]
    return features, allow, [call for call in deny if call not in seccomp._NEEDED]


def test_the_tables_are_those_of_the_rules(tmp_path):
    subprocess.run([sys.executable, f"{ROOT}/tools/seccomp.py", tmp_path], check=True)
    for arch in ARCHES:
        made = (tmp_path / f"seccomp_{arch}.h").read_bytes()
        with open(f"{ROOT}/csrc/seccomp_{arch}.h", "rb") as file:
            assert file.read() == made, "run tools/seccomp.py"


def test_names_and_numbers_are_libseccomps():
    lib = bpf._library()
    lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    for arch in ARCHES:
        known = numbers(arch)
        for number in range(600):
            name = lib.seccomp_syscall_resolve_num_arch(bpf.ARCH[arch], number)
            if name:
                assert known.get(name.decode()) == number
        for name, number in known.items():
            found = lib.seccomp_syscall_resolve_name_arch(bpf.ARCH[arch], name.encode())
            assert found in {number, -1}, name
            assert found == number or number > 456 or name in NEWER, name


def test_rules_name_calls_that_there_are():
    known = {name for arch in ARCHES for name in numbers(arch)}
    named = [call for rule in seccomp.RULES for call in rule.calls.split()]
    assert set(named) <= known
    assert len(named) == len(set(named)), "one rule a call"
    assert known >= seccomp._NEEDED


def arguments(test):
    """Values of the argument that a test looks at: each that matters, its neighbours, with and without a high half."""
    values = {0, 1, 17, 0xFFFFFFFF, 0x80000000, *test.one_of, *test.none_of}
    values |= {1 << i for i in range(32)} | {test.bits, test.bits ^ 0xFFFFFFFF}
    values |= {value ^ 1 for value in (*test.one_of, *test.none_of)} | set(range(48))
    for value in values:
        for high in (0, 1 << 32, 0xFFFFFFFF << 32, 1 << 63):
            args = [random.getrandbits(64) for _ in range(6)]
            args[test.arg] = value | high
            yield args


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", FILTERS)
def test_verdicts_are_libseccomps(arch, name):
    features, allow, deny = asked(name)
    found = bpf.parse(to_bytes(seccomp.program(arch, features, allow, deny)))
    verdicts = seccomp.verdicts(arch, features, allow, deny)
    reference = bpf.Reference(arch, verdicts, ENOSYS)
    random.seed(1)
    odd = [
        -1,
        1 << 31,
        0x3FFFFFFF,
        *(0x40000000 + n for n in range(0, 600, 7)),
        *random.sample(range(1 << 32), 50),
    ]
    for number in (*range(600), *odd):
        verdict = verdicts.get(number, ENOSYS)
        if number in reference.unknown:
            assert number > 456, number
        for args in (
            arguments(verdict) if isinstance(verdict, compiler.Test) else ([0] * 6, [(1 << 64) - 1] * 6)
        ):
            wanted = reference(bpf.ARCH[arch], number, args)
            if number in reference.unknown:
                wanted = bpf.action(verdict)
            assert bpf.run(found, bpf.ARCH[arch], number, args) == wanted, (number, args)
            if not isinstance(verdict, compiler.Test):
                assert wanted == bpf.action(verdict)
    for other in {bpf.I386, bpf.ARM, *bpf.ARCH.values(), 0, 0x80000016} - {bpf.ARCH[arch]}:
        for number in range(0, 600, 3):
            assert bpf.run(found, other, number, [0] * 6) == bpf.action(ENOSYS)


def test_what_the_default_says_of_single_calls():
    program = seccomp.program("x86_64", frozenset(["ptrace"]))

    def ask(name, *args):
        number = name if isinstance(name, int) else numbers("x86_64")[name]
        found = bpf.run(program, bpf.ARCH["x86_64"], number, [*args, *[0] * (6 - len(args))])
        return found & 0xFFFF if found != bpf.ALLOW else 0

    for name in "read execve clone unshare ioctl ptrace seccomp landlock_create_ruleset file_setattr uretprobe".split():
        assert ask(name) == 0, name
    for name in "mount fsopen open_tree_attr setns bpf reboot pidfd_getfd open_by_handle_at".split():
        assert ask(name) == 1, name
    for name in "clone3 keyctl io_uring_setup nfsservctl lookup_dcookie modify_ldt".split():
        assert ask(name) == ENOSYS, name
    assert ask("ioctl", 0, 0x5412 | 1 << 32) == ask("ioctl", 0, 0x541C) == 1
    assert ask("clone", 0x10000000 | 1 << 40) == ask("unshare", 0x80) == 1
    assert ask("clone", 0x1200011) == ask("ioctl", 0, 0x5413) == 0
    assert [ask("socket", family) for family in (1, 2, 10, 16, 17, 38, 40)] == [0, 0, 0, 0, 0, 97, 97]
    assert [ask("personality", value) for value in (0, 0xFFFFFFFF, 0x40000, 0x100000)] == [0, 0, 0, 1]
    # Newer than all, and a gap.
    assert ask(470) == ask(337) == ask(0x40000000) == ENOSYS


def test_jumps_that_are_too_far_for_a_condition():
    verdicts = {n: (0, 1, 2, 3)[n * 7 % 4] for n in range(0, 2000, 2)}
    program = assemble("x86_64", verdicts, ENOSYS)
    assert len(program) > 600
    for number in range(2002):
        wanted = bpf.action(verdicts.get(number, ENOSYS))
        assert bpf.run(program, bpf.ARCH["x86_64"], number, [0] * 6) == wanted


def test_a_filter_is_named_where_there_is_one():
    assert seccomp.filter_word(["ptrace", "sysfs"], [], []) == "default"
    assert seccomp.filter_word([], [], []) == "strict"
    assert seccomp.filter_word(["nesting", "ptrace"], [], []) == "nesting"
    assert seccomp.filter_word(["bpf"], [], []).startswith("bpf:2000000004000000")
    assert seccomp.filter_word(["ptrace"], ["mount"], []).startswith("bpf:")


def test_unknown_names_are_said():
    with pytest.raises(UsageError, match="no system call is called 'ptrac'") as caught:
        check("ptrac")
    assert "ptrace" in str(caught.value.hint)
    assert check("arch_prctl") == "arch_prctl"
    with pytest.raises(UsageError, match="cannot be denied"):
        seccomp.program("x86_64", frozenset(), (), ["execve"])
