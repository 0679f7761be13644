"""docs/policy.md names every preset, feature, socket, device, limit and option that there is."""

from __future__ import annotations

import os

import click

from layerrun.cli.manage import create
from layerrun.cli.policy import policy_options
from layerrun.policy import DEVICES, FEATURES, PRESETS, RLIMITS, SOCKETS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_all_is_documented():
    with open(os.path.join(ROOT, "docs", "policy.md"), encoding="utf-8") as file:
        text = file.read()
    for word in (*PRESETS, *FEATURES, *DEVICES, *RLIMITS, "memory", "swap", "pids", "cpu", "io"):
        assert f"`{word}`" in text, word
    for word in SOCKETS:
        assert f"`{word}" in text, word

    @policy_options
    def bare():
        """Nothing."""

    for option in click.command()(bare).params:
        assert f"`{option.opts[0]}`" in text, option.opts[0]
        assert option.opts[0] in [one.opts[0] for one in create.params]
