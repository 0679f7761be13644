"""Write the filters of system calls, csrc/seccomp_ARCH.h, from layerrun/runtime/seccomp.py."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from layerrun.runtime.seccomp import TABLES, program
from layerrun.syscalls import ARCHES


def header(arch: str) -> str:
    """Return the text of the header for an architecture."""
    lines = [
        "/* Made by tools/seccomp.py from layerrun/runtime/seccomp.py: change that, and run it again. */",
        "#include <linux/filter.h>",
        "",
        "/* clang-format off */",
    ]
    for name, features in TABLES.items():
        steps = program(arch, features)
        lines += [f"static const struct sock_filter {name}_table[{len(steps)}] = {{"]
        for at in range(0, len(steps), 5):
            lines.append(
                "    "
                + " ".join(
                    f"{{0x{code:02x}, {yes}, {no}, 0x{value:x}}},"
                    for code, yes, no, value in steps[at : at + 5]
                )
            )
        lines.append("};")
    return "\n".join([*lines, "/* clang-format on */", ""])


def main() -> None:
    """Write them all."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "csrc"
    for arch in ARCHES:
        with open(os.path.join(folder, f"seccomp_{arch}.h"), "w", encoding="ascii") as file:
            file.write(header(arch))


if __name__ == "__main__":
    main()
