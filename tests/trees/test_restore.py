"""`reset --path`: what lies beneath shows through again, there and nowhere else."""

OLD = 1_000_000_000_123_456_789
LOWER = [
    ["dir", "etc"],
    ["file", "etc/a.conf", "a", OLD],
    ["file", "etc/b.conf", "b", OLD],
    ["dir", "etc/sub"],
    ["file", "etc/sub/c.conf", "c", OLD],
    ["file", "etc/sub/d", "d", OLD],
    ["dir", "home"],
]


def restored(overlay, work, *globs, layers=(), **more):
    answer = overlay.ask(LOWER, *layers, work, globs=list(globs), **more)
    return answer["restored"], [" ".join(line) for line in answer["diff_after"]]


def test_each_kind_of_change(overlay):
    work = [
        ["file", "etc/a.conf", "changed"],
        ["remove", "etc/b.conf"],
        ["file", "etc/new.conf", "new"],
        ["remove", "etc/sub/c.conf"],
        ["dir", "etc/sub/c.conf"],
        ["file", "home/kept.conf", "kept"],
    ]
    paths, left = restored(overlay, work, "/etc/**/*.conf")
    assert paths == ["/etc/a.conf", "/etc/b.conf", "/etc/new.conf", "/etc/sub/c.conf"]
    assert left == ["A /home/kept.conf"]
    paths, left = restored(overlay, work, "/etc/*.conf")
    assert paths == ["/etc/a.conf", "/etc/b.conf", "/etc/new.conf"]
    assert left == ["T /etc/sub/c.conf", "A /home/kept.conf"]


def test_a_folder_with_all_in_it(overlay):
    work = [["file", "etc/sub/new", "n"], ["chmod", "etc/sub", 0o700], ["file", "etc/a.conf", "changed"]]
    paths, left = restored(overlay, work, "/etc/sub")
    assert paths == ["/etc/sub"]
    assert left == ["M /etc/a.conf"]


def test_beneath_an_opaque_folder(overlay):
    work = [["remove", "etc"], ["dir", "etc"], ["file", "etc/mine", "m"]]
    paths, left = restored(overlay, work, "/etc/sub/c.conf")
    assert paths == ["/etc/sub/c.conf"]
    assert left == ["D /etc/a.conf", "D /etc/b.conf", "A /etc/mine", "D /etc/sub/d"]


def test_beneath_a_folder_that_is_gone(overlay):
    paths, left = restored(overlay, [["remove", "etc"]], "/etc/sub/c.conf")
    assert paths == ["/etc/sub/c.conf"]
    assert left == ["D /etc/a.conf", "D /etc/b.conf", "D /etc/sub/d"]


def test_what_does_not_match_stays_hidden(overlay):
    work = [["remove", "etc"], ["dir", "etc"], ["file", "etc/mine", "m"]]
    paths, left = restored(overlay, work, "/etc/none*", "/nowhere")
    assert paths == []
    assert left == ["D /etc/a.conf", "D /etc/b.conf", "A /etc/mine", "D /etc/sub"]


def test_a_file_in_the_way_stays(overlay):
    work = [["remove", "etc"], ["file", "etc", "a file"]]
    paths, left = restored(overlay, work, "/etc/a.conf")
    assert (paths, left) == ([], ["T /etc"])


def test_through_layers(overlay):
    first = [["remove", "etc/sub"], ["dir", "etc/sub"], ["file", "etc/sub/e", "e", OLD]]
    work = [["remove", "etc"]]
    paths, left = restored(overlay, work, "/etc/sub/*", layers=[first])
    assert paths == ["/etc/sub/e"]
    assert left == ["D /etc/a.conf", "D /etc/b.conf"]


def test_odd_names(overlay):
    work = [["file", "etc/[x]\n\udcff", "odd"], ["file", "etc/x", "x"]]
    paths, left = restored(overlay, work, "/etc/[[]x]*")
    assert paths == ["/etc/[x]\n\udcff"]
    assert left == ["A /etc/x"]
