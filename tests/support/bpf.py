"""What libseccomp makes of the rules, and an interpreter for such programs (linux/filter.h, as seccomp(2) uses it)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile

from layerrun.syscalls import numbers

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
ALLOW, ERRNO, LOW = 0x7FFF0000, 0x00050000, 0xFFFFFFFF
MASKED_EQ = 7


class _Cmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _library():
    found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_add.argtypes = found.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Cmp),
    ]
    return found


def action(code):
    return ERRNO | code if code else ALLOW


class Reference:
    """The same verdicts, compiled by libseccomp: a program by number, and one for each test of an argument.

    libseccomp has no "unless masked"; so what is tested has a program of its own, whose default is the other verdict.
    """

    def __init__(self, arch, verdicts, unknown):
        self.lib = _library()
        self.arch = arch
        native = numbers(os.uname().machine)
        self.native = {number: native[name] for name, number in numbers(arch).items() if name in native}
        self.unknown = set()  # numbers for which libseccomp has no name on another machine
        plain = {n: 0 if not isinstance(v, int) else v for n, v in verdicts.items()}
        self.plain = self._compile(unknown, [(n, v, ()) for n, v in plain.items() if v != unknown], unknown)
        self.tests = {n: self._test(n, v, unknown) for n, v in verdicts.items() if not isinstance(v, int)}

    def _test(self, number, test, unknown):
        if test.none_of:
            assert not test.one_of
            assert not test.bits
            rules = [(number, 0, (test.arg, LOW, value)) for value in test.none_of]
            return self._compile(test.errno, rules, unknown)
        bits = [1 << i for i in range(32) if test.bits >> i & 1]
        rules = [(number, test.errno, (test.arg, bit, bit)) for bit in bits]
        rules += [(number, test.errno, (test.arg, LOW, value)) for value in test.one_of]
        return self._compile(0, rules, unknown)

    def _compile(self, default, rules, bad_arch):
        lib = self.lib
        context = lib.seccomp_init(action(default))
        assert context
        native = lib.seccomp_arch_native()
        if ARCH[self.arch] != native:
            assert lib.seccomp_arch_add(context, ARCH[self.arch]) == 0
            assert lib.seccomp_arch_remove(context, native) == 0
        assert lib.seccomp_attr_set(context, 2, action(bad_arch)) == 0  # SCMP_FLTATR_ACT_BADARCH
        for number, code, compared in rules:
            array = (_Cmp * 1)(_Cmp(compared[0], MASKED_EQ, compared[1], compared[2])) if compared else None
            # A number is the native machine's to libseccomp, which looks for its name on the other.
            done = lib.seccomp_rule_add_array(
                context, action(code), self.native[number], 1 if compared else 0, array
            )
            if done in (-errno.EFAULT, -errno.EDOM, -errno.EINVAL):
                self.unknown.add(number)
            else:
                assert done == 0, (number, done)
        with tempfile.TemporaryFile() as file:
            assert lib.seccomp_export_bpf(context, file.fileno()) == 0
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            program = parse(file.read())
        lib.seccomp_release(context)
        return program

    def __call__(self, arch, number, args):
        found = run(self.plain, arch, number, args)
        if found == ALLOW and number in self.tests:
            return run(self.tests[number], arch, number, args)
        return found


def parse(data):
    return list(struct.iter_unpack("<HBBI", data))


def run(program, arch, number, args):
    """Return what a filter says to a call: an action, as the kernel would have it."""
    data = struct.pack("<IIQ6Q", number & LOW, arch, 0, *args)
    at = accumulator = 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:  # ld [k]
            assert value % 4 == 0
            assert value < len(data)
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:  # and #k
            accumulator &= value
        elif code == 0x05:  # ja
            at += value
        elif code in (0x15, 0x25, 0x35, 0x45):  # jeq, jgt, jge, jset
            true = (accumulator == value, accumulator > value, accumulator >= value, accumulator & value)
            at += yes if true[(code - 0x15) >> 4] else no
        elif code == 0x06:  # ret
            return value
        else:
            raise AssertionError(f"{code:#x} is no step that we know of")
