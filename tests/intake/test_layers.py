"""Streams of records become trees: layers one upon another, records that are used again, and what is refused."""

import errno
import io
import os
import stat

import attrs
import pytest
from support.streams import ONE, TWO, Told, file, folder_of, paths, take

from layerrun.bases import intake, records, tree, versions
from layerrun.errors import ArchiveError
from layerrun.images.stream import Record, Step
from layerrun.model import IdMode
from layerrun.native.intake import sweep_objects


def test_layers_one_upon_another(store):
    base = take(
        store,
        Record("n", link=b"one"),
        folder_of("usr"),
        file("usr/a", b"1"),
        file("usr/sub/b", b"2"),
        file("usr/sub/c", b"3"),
        Record("l", b"usr/link", link=b"a"),
        Record("n", link=b"two"),
        file("usr/sub/new", b"4"),
        Record("w", b"usr/a"),
        Record("o", b"usr/sub"),
        file("usr/link", b"no link any more"),
        Record("w", b"usr/never"),
        Record("w", b"nowhere/at/all"),
        Record("n", link=b"three"),
        Record("h", b"usr/again", link=b"usr/sub/new"),
        file("usr/z", b""),
    )
    assert paths(store, base) == ["usr", "usr/again", "usr/link", "usr/sub", "usr/sub/new", "usr/z"]
    assert tree.verify(store, base) == []


def test_a_layer_replaces_folders_and_files(store):
    base = take(
        store,
        Record("n", link=b"one"),
        file("usr/is-folder/x", b"x"),
        file("usr/is-file", b"y"),
        Record("n", link=b"two"),
        file("usr/is-folder", b"now a file"),
        folder_of("usr/is-file"),
        file("usr/is-file/x", b"now beneath a folder"),
    )
    assert paths(store, base) == ["usr", "usr/is-file", "usr/is-file/x", "usr/is-folder"]


def test_what_goes_while_the_intake_stands_in_it(store):
    base = take(
        store,
        Record("n", link=b"one"),
        file("usr/a/b/f", b"1"),
        Record("n", link=b"two"),
        Record("w", b"usr/a/b"),
        file("usr/a/b/g", b"2"),
    )
    assert paths(store, base) == ["usr", "usr/a", "usr/a/b", "usr/a/b/g"]


def test_device_nodes_go_with_their_folder(store):
    null = Record("c", b"dev/null", major=1, minor=3)
    layers = [Record("n", link=b"one"), folder_of("usr"), null, Record("n", link=b"two"), file("dev", b"")]
    base = take(store, *layers)
    assert paths(store, base) == ["dev", "usr"]
    with open(f"{store.path}/bases/{base.id}/manifest") as text:
        assert "dev/null" not in text.read()


def test_what_a_layer_brings_its_own_whiteouts_leave(store):
    base = take(
        store,
        Record("n", link=b"one"),
        file("usr/d/old", b"1"),
        Record("n", link=b"two"),
        file("usr/d/new", b"2"),
        Record("w", b"usr/d"),
    )
    assert paths(store, base) == ["usr", "usr/d", "usr/d/new"]


def test_hard_links_that_several_layers_repeat_count_once(store):
    a, b, again = (
        Record("h", b"usr/" + path, link=b"usr/" + link)
        for path, link in ((b"a", b"x"), (b"b", b"a"), (b"x", b"b"))
    )
    layers = (Record("n", link=b"%d" % number) for number in range(3))
    first = [next(layers), file("usr/x", b"x" * 100), a, b]
    base = take(store, *first, next(layers), a, again, next(layers), a)
    assert paths(store, base) == ["usr", "usr/a", "usr/b", "usr/x"]
    assert base.size == 100
    with open(f"{store.path}/bases/{base.id}/links") as text:
        assert sorted(text) == ["h usr/a usr/x\n", "h usr/x usr/b\n"]


def test_known_layers_are_not_told_again(store):
    layers = [
        Record("n", link=b"sha256:aa"),
        folder_of("usr"),
        file("usr/a", b"content", xattrs={b"user.x": b"1"}),
        Record("n", link=b"sha256:bb"),
        file("usr/b", b"more"),
    ]
    first = take(store, *layers)
    second = Told([layers[0], layers[3], Record("n", link=b"sha256:cc"), file("usr/c", b"third")])
    made = intake.import_base(store, "second", second)
    assert second.known == {"sha256:aa", "sha256:bb"}
    assert paths(store, made) == ["usr", "usr/a", "usr/b", "usr/c"]
    assert tree.verify(store, made) == []
    # Without its objects a record is worth nothing, and the source is asked for all of it.
    for base in (first, made):
        versions.remove(store, base.name)
    objects = os.open(f"{store.path}/objects", os.O_RDONLY)
    sweep_objects(objects)
    os.close(objects)
    again = Told(layers, short=[layers[0], layers[3]])
    made = intake.import_base(store, "third", again)
    assert again.fed == 2
    assert paths(store, made) == ["usr", "usr/a", "usr/b"]
    assert made.digest == first.digest


@pytest.mark.parametrize(
    ("planned", "told", "words"),
    [
        ([], [ONE, file("usr/a", b"evil")], "not announced"),
        ([("sha256:bb", "w")], [ONE, file("usr/a", b"evil")], "not announced"),
        ([("sha256:aa", "w")], [ONE, file("usr/a", b"x"), ONE, file("usr/a", b"evil")], "not announced"),
        ([("sha256:aa", "w"), ("sha256:bb", "-")], [ONE, file("usr/a", b"x")], "ends too soon"),
        ([("sha256:aa", "r")], [ONE, file("usr/a", b"evil")], "known"),
    ],
)
def test_only_layers_that_were_announced(store, planned, told, words):
    """What writes the stream may have been taken over: it may not choose whose record it writes or has replayed."""
    take(store, ONE, file("usr/a", b"good"))
    source = Told(told)
    source.plan = lambda _known: [Step(*one) for one in planned]
    with pytest.raises(ArchiveError, match=words):
        intake.import_base(store, "evil", source)
    assert os.listdir(f"{store.path}/records") == ["sha256:aa.owners"]
    again = Told([ONE])
    assert paths(store, intake.import_base(store, "again", again)) == ["usr", "usr/a"]
    assert again.fed == 1


def test_a_layer_that_is_not_to_be_recorded(store):
    source = Told([ONE, file("usr/a", b"1"), TWO, file("usr/b", b"2")])
    source.plan = lambda _known: [Step("sha256:aa", "w"), Step("sha256:bb", "-")]
    intake.import_base(store, "b", source)
    assert os.listdir(f"{store.path}/records") == ["sha256:aa.owners"]


def test_records_of_layers_that_nothing_has_go(store):
    """Once they are old, or at once with an age of nothing; one that was used lately is not old."""
    three = Record("n", link=b"sha256:cc")
    first = take(store, ONE, file("usr/a", b"1"), TWO, file("usr/b", b"2"), three, folder_of("usr"))
    names = [f"{store.path}/records/sha256:{name}.owners" for name in ("aa", "bb", "cc")]
    second = take(store, ONE, file("usr/a", b"1"), name="second")
    versions.remove(store, first.name)
    month = 30 * 86400.0
    assert records.garbage(store, month) == []
    for name in names:
        os.utime(name, (0, 0))
    (found,) = records.garbage(store, month)
    assert "2 layers" in found.what
    intake.import_base(store, "third", Told([ONE]))
    assert os.stat(names[0]).st_mtime > 0
    found.remove()
    found.remove()
    assert [os.path.exists(name) for name in names] == [True, False, False]
    for base in (second, store.base("third")):
        versions.remove(store, base.name)
    with open(names[1], "wb") as damaged:
        damaged.write(b"k" * 70)
    assert "2 layers" in records.garbage(store, 0)[0].what


def test_an_end_that_the_source_did_not_write(store):
    """Its digests are not looked at by then: nothing is kept."""

    class Ended(Told):
        def feed(self, to):
            with os.fdopen(os.dup(to.out), "wb") as out:
                self.write(out)
            raise BrokenPipeError(32, "as the jail says")

    with pytest.raises(BrokenPipeError):
        intake.import_base(store, "b", Ended([ONE, file("usr/a", b"evil")]))
    assert os.listdir(f"{store.path}/records") == []


@pytest.mark.parametrize("damage", [lambda data: data[:-70], lambda data: b"?" + data[1:], lambda _: b""])
def test_a_damaged_record(store, damage):
    """The source tells it all, and the record is whole again."""
    layers = [ONE, file("usr/a", b"1"), file("usr/b", b"2")]
    first = take(store, *layers)
    record = f"{store.path}/records/sha256:aa.owners"
    with open(record, "rb") as old:
        whole = old.read()
    with open(record, "wb") as new:
        new.write(damage(whole))
    again = Told(layers, short=[ONE])
    assert intake.import_base(store, "again", again).digest == first.digest
    assert again.fed == 2
    with open(record, "rb") as new:
        assert new.read() == whole


@pytest.mark.parametrize("limits", [{"size": 250}, {"entries": 4}])
def test_limits_are_of_known_layers_too(store, limits):
    layers = [ONE, file("usr/a", bytes(100)), TWO, file("usr/b", bytes(100))]
    take(store, *layers)
    third = Record("n", link=b"sha256:cc")
    more = [third, file("usr/c", bytes(100)), file("usr/d", b""), file("usr/e", b"")]
    source = Told([*layers, *more], short=[ONE, TWO, *more])
    with pytest.raises(ArchiveError, match=r"more than may come in|one too many"):
        intake.import_base(store, "more", source, **limits)


def test_marks_of_a_tree_that_lies_above_others(store):
    source = Told([file("etc/x", b"x"), Record("w", b"usr/gone"), Record("o", b"var")])
    with store.ticket() as ticket:
        intake.take_in(store, ticket.fd, "layer", source, IdMode.RANGE, rooted=False, marks=True)
        top = f"{store.path}/staging/{ticket.id}/layer/tree"
        gone = os.lstat(f"{top}/usr/gone")
        assert stat.S_ISCHR(gone.st_mode)
        assert gone.st_rdev == 0
        assert os.getxattr(f"{top}/var", "trusted.overlay.opaque") == b"y"
        with open(f"{top}/../manifest") as text:
            assert "c 0000 0 0 0:0 usr/gone" in [line.strip() for line in text]


LINK = Record("l", b"usr/out", link=b"/etc")
REFUSED = {
    "a name that leads up": ([file("usr/../../x", b"")], "leads elsewhere"),
    "an absolute name": ([file("/usr/x", b"")], "leads elsewhere"),
    "an empty part": ([file("usr//x", b"")], "leads elsewhere"),
    "through a link": ([LINK, file("usr/out/x", b"")], "behind a link"),
    "a folder over a link": ([LINK, folder_of("usr/out")], "no folder"),
    "a file over a folder": ([folder_of("usr/d"), file("usr/d", b"")], "place of a folder"),
    "a hard link to nothing": ([Record("h", b"usr/h", link=b"usr/no")], "not there"),
    "a hard link through a link": ([LINK, Record("h", b"usr/h", link=b"usr/out/passwd")], "behind a link"),
    "a hard link to a link": ([LINK, Record("h", b"usr/h", link=b"usr/out")], "no file"),
    "a hard link to a folder": ([folder_of("usr/d"), Record("h", b"usr/h", link=b"usr/d")], "no file"),
    "a hard link that leads up": ([Record("h", b"usr/h", link=b"../etc/passwd")], "not there"),
    "a root that is a link": ([Record("l", b"", link=b"/etc")], "root"),
    "a whiteout of the root": ([Record("w", b"")], "root"),
    "a whiteout node": ([Record("c", b"usr/w")], "device node"),
    "an owner that nobody is": ([file("usr/x", b"", uid=65536)], "id"),
    "a known object": ([Record("k", b"usr/k", link=b"0" * 64 + b"-" + b"0" * 16)], "claims to be known"),
    "more modes than there are": ([file("usr/x", b"", mode=0o10000)], "no proper record"),
    "an unknown kind": ([Record("x", b"usr/x")], "no proper record"),
    "a name that is too long": ([file("usr/" + "n" * 256, b"")], "255"),
    "too deep": ([file("usr/" + "d/" * 128 + "x", b"")], "too deep"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_and_nothing_kept(store, what):
    told, words = REFUSED[what]
    with pytest.raises(ArchiveError, match=words):
        take(store, folder_of("usr"), file("usr/first", b"first"), *told)
    assert not os.listdir(f"{store.path}/bases")
    assert not os.listdir(f"{store.path}/staging")
    assert not os.listdir(f"{store.path}/objects")


def test_an_object_is_what_its_record_says(store):
    """Whoever may name objects may not say something else of them than their names do."""
    made = take(store, folder_of("usr"), file("usr/x", b"x", mode=0o755))
    (name,) = (at[-2:] + one for at, _, files in os.walk(f"{store.path}/objects") for one in files)
    known = attrs.evolve(file("usr/x", b"x", mode=0o755).record, kind="k", link=name.encode())
    other = Told([folder_of("usr"), known], vouched=True)
    assert intake.import_base(store, "again", other).digest == made.digest
    for wrong in ({"mode": 0o4755}, {"mtime_ns": 1}, {"uid": 5}, {"xattrs": {b"user.x": b"1"}}, {"size": 2}):
        told = Told([folder_of("usr"), attrs.evolve(known, **wrong)], vouched=True)
        with pytest.raises(ArchiveError):
            intake.import_base(store, "wrong", told)
        assert tree.verify(store, made) == []
        assert os.path.exists(f"{store.path}/objects/{name[:2]}/{name[2:]}")


def test_a_source_that_fails_behind_its_end_has_failed(store):
    class Late(Told):
        def feed(self, to):
            super().feed(to)
            raise BrokenPipeError(errno.EPIPE, "so it says")

    with pytest.raises(BrokenPipeError):
        intake.import_base(store, "b", Late([folder_of("usr"), file("usr/x", b"x")]))
    assert store.catalog.bases() == []


def test_a_folder_that_comes_twice_has_the_later_attributes(store):
    first = {b"user.a": b"1"}
    base = take(
        store,
        folder_of("", xattrs=first),
        folder_of("usr", xattrs=first),
        folder_of("usr", xattrs={b"user.b": b"2"}),
        folder_of(""),
    )
    assert tree.verify(store, base) == []
    assert os.listxattr(f"{store.path}/bases/{base.id}/tree/usr") == ["user.b"]


def test_names_that_would_fill_the_memory(store):
    """What waits for the end of the stream is held to a limit, as what is read at once is."""
    deep = b"/".join([b"d" * 250] * 127)
    names = (Record("c", b"%s/%d" % (deep, number), major=1, minor=3) for number in range(9000))
    with pytest.raises(ArchiveError, match="too many long names"):
        intake.import_base(store, "b", Told(names))


def test_what_nobody_vouches_for_is_left_out(store):
    xattrs = {
        b"user.kept": b"1",
        b"user.overlay.opaque": b"y",
        b"trusted.overlay.opaque": b"y",
        b"trusted.x": b"1",
        b"security.selinux": b"x",
        b"security.capability": b"\1\0\0\3" + bytes(20),
    }
    base = take(
        store,
        folder_of("usr", xattrs=xattrs),
        file("usr/x", b"x", xattrs=xattrs),
        Record("c", b"dev/null", major=1, minor=3),
    )
    top = f"{store.path}/bases/{base.id}/tree"
    assert os.listxattr(f"{top}/usr") == os.listxattr(f"{top}/usr/x") == ["user.kept"]
    assert os.listdir(f"{top}/dev") == []
    with open(f"{top}/../manifest") as text:
        assert "c 0000 0 0 1:3 dev/null\n" in text.readlines()
    assert tree.verify(store, base) == []


@pytest.mark.parametrize("size", [1, 100, 65, 64, 4000])
def test_a_stream_cut_short(store, size):
    class Cut(Told):
        def feed(self, to):
            whole = io.BytesIO()
            self.write(whole)
            with os.fdopen(os.dup(to.out), "wb") as out:
                out.write(whole.getvalue()[:-size])
            return {}

    with pytest.raises(ArchiveError, match="ends too soon"):
        intake.import_base(store, "b", Cut([folder_of("usr"), file("usr/x", b"x" * 5000)]))
    assert not os.listdir(f"{store.path}/staging")


def test_holes_are_kept_and_do_not_change_the_digest(store):
    data = bytes(1 << 20) + b"end"
    plain = take(store, file("usr/x", data), name="plain")
    holed = take(store, attrs.evolve(file("usr/x", data), holes=True), name="holed", mtime=5)
    assert plain.digest == holed.digest
    blocks = os.stat(f"{store.path}/bases/{holed.id}/tree/usr/x").st_blocks
    assert blocks < os.stat(f"{store.path}/bases/{plain.id}/tree/usr/x").st_blocks or blocks < 100


@pytest.mark.long
def test_more_names_than_an_object_can_have(store):
    """ext4 allows 65,000: the 65,000th empty file begins another object."""
    many = [file(f"usr/{n:05}", b"") for n in range(66_000)]
    base = take(store, *many)
    assert base.entries == 66_002
    assert tree.verify(store, base) == []
    inodes = {entry.inode() for entry in os.scandir(f"{store.path}/bases/{base.id}/tree/usr")}
    assert len(inodes) <= 2


@pytest.mark.long
def test_files_of_one_import_are_one_though_the_store_has_no_name_left(store):
    take(store, file("usr/x", b""), name="first")
    (path,) = (f"{at}/{name}" for at, _, names in os.walk(f"{store.path}/objects") for name in names)
    os.mkdir(f"{store.path}/staging/many")

    def use_up():
        for number in range(66_000):
            os.link(path, f"{store.path}/staging/many/{number}")

    with pytest.raises(OSError, match="Too many links"):
        use_up()
    base = take(store, *(file(f"usr/{name}", b"") for name in "abc"), name="second")
    inodes = {entry.inode() for entry in os.scandir(f"{store.path}/bases/{base.id}/tree/usr")}
    assert len(inodes) == 1
    assert os.stat(path).st_nlink == 4
