"""Compilers and package installers of languages, on what the base has and in the caller's own home."""

from __future__ import annotations

import pytest
from programs.places import AUTHORITIES, PLACES

PROGRAM = r"""
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    printf("%s was compiled, uid %d\n", argv[argc - 1], (int)getuid());
    return 7;
}
"""


def test_c_compile(place):
    """gcc of the host; in the tree tcc, which is enough of a compiler and a tenth of the size."""
    app = place.tools()
    compiler = "gcc -O1 -Wall" if place.base == "host" else "tcc"
    place("app", app, "--", "sh", "-euc", "cd; mkdir -p made; cat > made/it.c", input=PROGRAM)
    place.sh(app, f"cd made && {compiler} -c it.c && {compiler} -o it it.o")
    uid = place.user.uid if place.user and place.base == "host" else 0
    assert place.sh(app, "made/it this", check=7) == f"this was compiled, uid {uid}\n"
    assert "/made/it\n" in place("diff", app).stdout
    place("reset", "-y", "--path", "/**/made", app)
    place("app", app, "--", "sh", "-c", "test ! -e ~/made")


@pytest.mark.network
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(name, marks=() if name in ("root-debian", "plain-host") else pytest.mark.long)
        for name in PLACES
    ],
    indirect=True,
)
def test_pip_installs_into_an_environment(place):
    app = place.tools()
    authorities = f"test ! -e {AUTHORITIES} || export PIP_CERT={AUTHORITIES}"
    install = "env/bin/pip install -q --disable-pip-version-check six 2>&1"
    place.sh(app, f"{authorities}; /usr/bin/python3 -m venv env && {install}")
    where = place.sh(app, "env/bin/python -c 'import six; print(six.__file__, six.moves.range(3)[2])'")
    assert where.endswith("/env/lib/python3.11/site-packages/six.py 2\n")
    place("reset", "-y", "--path", "/**/env", app)
    place("app", app, "--", "sh", "-c", "test ! -e ~/env")
