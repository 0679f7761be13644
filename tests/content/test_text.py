"""Texts line by line: spans, hunks, some of them applied, merged three ways; beside diff(1), patch(1) and diff3(1)."""

import itertools
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerrun.layers import text

LINE = st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\r\n", b"\n", b"- x\n", b"\xff\xfe\n"])
TEXT = st.tuples(st.lists(LINE, max_size=30), st.sampled_from([b"", b"end", b"\xe4"])).map(
    lambda parts: b"".join(parts[0]) + parts[1]
)


def spans_of(old, new):
    return text.spans(text.split_lines(old), text.split_lines(new))


@given(TEXT, TEXT)
def test_all_spans_applied_give_the_new_text(old, new):
    before, after = text.split_lines(old), text.split_lines(new)
    found = text.spans(before, after)
    assert b"".join(text.apply(found, before, after)) == new
    assert text.apply([], before, after) == before
    for one, two in itertools.pairwise(found):
        assert one.old_at + one.old_count < two.old_at or one.new_at + one.new_count < two.new_at
    assert bool(found) == (old != new)


@given(TEXT, TEXT)
def test_large_ones_go_through_diff_and_say_as_much(old, new):
    before, after = text.split_lines(old), text.split_lines(new)
    found = text._by_diff(before, after)
    assert b"".join(text.apply(found, before, after)) == new


@settings(max_examples=40)
@given(TEXT, TEXT)
def test_patch_takes_the_hunks(tmp_path_factory, old, new):
    folder = tmp_path_factory.mktemp("patch")
    (folder / "f").write_bytes(old)
    before, after = text.split_lines(old), text.split_lines(new)
    shown = [b"--- f\n", b"+++ f\n"]
    for hunk in text.hunks(text.spans(before, after)):
        shown += text.unified(hunk, before, after)
    if len(shown) == 2:
        return
    done = subprocess.run(
        ["patch", "--binary", "--posix", "f"], cwd=folder, input=b"".join(shown), capture_output=True
    )
    assert done.returncode == 0, (done.stdout, b"".join(shown))
    assert ((folder / "f").read_bytes() if (folder / "f").exists() else b"") == new


def test_a_hunk_looks_as_that_of_diff(tmp_path):
    old = b"".join(b"%d\n" % n for n in range(40))
    new = old.replace(b"3\n", b"three\n", 1).replace(b"10\n", b"").replace(b"30\n", b"30\nmore\n") + b"end"
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    before, after = text.split_lines(old), text.split_lines(new)
    groups = text.hunks(text.spans(before, after))
    shown = b"".join(b"".join(text.unified(hunk, before, after)) for hunk in groups)
    said = subprocess.run(["diff", "-u", "old", "new"], cwd=tmp_path, capture_output=True).stdout
    assert shown == said.split(b"\n", 2)[2]
    assert [len(group) for group in groups] == [1, 1, 2] or len(groups) >= 2


@given(TEXT, st.data())
def test_any_choice_of_spans_can_be_applied(new, data):
    old = data.draw(TEXT)
    before, after = text.split_lines(old), text.split_lines(new)
    found = text.spans(before, after)
    chosen = [span for span in found if data.draw(st.booleans())]
    half = text.apply(chosen, before, after)
    # What was left out is all that differs now.
    assert b"".join(text.apply(text.spans(half, after), half, after)) == new


def test_what_is_text():
    assert text.is_text(b"")
    assert text.is_text(b"\xff\r\n\x1b[31m")
    assert not text.is_text(b"a\0b")
    assert not text.is_text(b" " * (text.LARGEST + 1))


def test_merge_of_what_does_not_touch():
    base = b"1\n2\n3\n4\n5\n"
    assert text.merge3(base, b"one\n2\n3\n4\n5\n", b"1\n2\n3\n4\nfive\n") == b"one\n2\n3\n4\nfive\n"
    assert text.merge3(base, b"0\n" + base, base + b"6\n") == b"0\n1\n2\n3\n4\n5\n6\n"
    assert text.merge3(base, base, b"2\n3\n") == b"2\n3\n"
    assert text.merge3(base, b"1\n3\n4\n5\n", b"1\n3\n4\n5\n") == b"1\n3\n4\n5\n"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (b"one\n2\n3\n", b"uno\n2\n3\n"),  # the same line
        (b"one\n2\n3\n", b"1\ntwo\n3\n"),  # neighbours
        (b"1\n2\n3\nx\n", b"1\n2\n3\ny\n"),  # both at the end
        (b"1\nx\n2\n3\n", b"1\ny\n2\n3\n"),  # both at one place
        (b"2\n3\n", b"0\n1\n2\n3\n"),  # one removes what the other adds before
        (b"1\n2\n3\n\0", b"1\n2\n3\n"),  # no text
    ],
)
def test_no_merge_of_what_touches(ours, theirs):
    assert text.merge3(b"1\n2\n3\n", ours, theirs) is None
    assert text.merge3(b"1\n2\n3\n", theirs, ours) is None


@given(TEXT, TEXT, TEXT)
def test_a_merge_holds_what_both_did(base, ours, theirs):
    merged = text.merge3(base, ours, theirs)
    assert merged == text.merge3(base, theirs, ours)
    assert text.merge3(base, ours, base) == ours
    assert text.merge3(base, ours, ours) == ours
    if merged is not None:
        lines = text.split_lines(base + b"\n" + ours + b"\n" + theirs)
        assert set(text.split_lines(merged)) <= set(lines) | {b"end", b"\xe4"}


def test_texts_that_are_hard_to_compare():
    """Each would take difflib minutes: many equal lines, in another order, and no line that both have."""
    begin = time.monotonic()
    many = 60_000
    same = [b"same\n"] * many
    odd = [b"same\n" if n % 3 else b"%d\n" % n for n in range(many)]
    assert text.apply(text.spans(same, odd), same, odd) == odd
    one, two = [b"%d\n" % n for n in range(many)], [b"%d\n" % (many - n) for n in range(many)]
    assert text.apply(text.spans(one, two), one, two) == two
    three = [b"x%d\n" % n for n in range(many)]
    assert text.apply(text.spans(one, three), one, three) == three
    print(f"{time.monotonic() - begin:.1f} s")
