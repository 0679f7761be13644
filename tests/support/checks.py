"""The checks of isolation and robustness, as data: what is tried, what must be seen, where. See docs/checks.md.

`CHECKS` is the whole list. Each check has, in each of its modes, a test in tests/escape (marked ``check(NUMBER)``), or
an entry here: `COVERED`, by tests elsewhere, or `NOT_SHOWN`, with the reason. tests/escape/test_table.py sees to it
that nothing is missing and that what is referred to exists.
"""

from __future__ import annotations

import dataclasses

MODES = {
    "one-id": "a plain user's app, one id mapped, over the machine's `/`",
    "subids": "a plain user's app with subordinate ids, over an imported base",
    "root": "root's app with a range of ids, over the machine's `/`",
    "try": "a throwaway of root's over the machine's `/`, with a range of ids",
    "undo": "a throwaway of root's with `--no-userns`: an undo, not a jail",
}
ALL = ("one-id", "subids", "root", "try")
KERNEL = (*ALL, "undo")
APPS = ("one-id", "subids", "root")


@dataclasses.dataclass(frozen=True)
class Check:
    """One check; ``modes`` are keys of `MODES`."""

    number: int
    name: str
    tried: str
    seen: str
    modes: tuple[str, ...] = ALL


KERNEL_SURFACE = (
    Check(1, "kernel settings", "open the files below /proc/sys for writing, among them core_pattern, modprobe "
          "and binfmt_misc/register", "refused for each, or not there", KERNEL),
    Check(2, "kernel insides", "open sysrq-trigger, kcore, kmsg, timer_list, kpage*, /dev/kmsg, /dev/mem and pid 1's "
          "memory, for reading and writing; read keys and kallsyms", "refused, covered or not there; no key of "
          "outside, no address", KERNEL),
    Check(3, "sysfs and control groups", "look for /sys, for mounted control groups, debugfs and the like; open what "
          "is found for writing", "/sys is empty, nothing of the kind is mounted", KERNEL),
    Check(4, "the machine's root", "read the maps of ids", "no line maps host id 0; without a user namespace a "
          "warning says so", KERNEL),
    Check(5, "capabilities", "read all five sets, of the command and of pid 1", "inheritable and ambient empty; the "
          "bounding set is the profile's", KERNEL),
    Check(6, "no new privileges", "execute a setuid program, and one with file capabilities", "nothing is gained; with "
          "`--allow setuid` only ids of the app's own", KERNEL),
    Check(7, "the filter is everywhere", "look for seccomp in the command, a child, a thread, after exec, in pid 1, "
          "in who joins", "mode 2 in all of them", KERNEL),
    Check(8, "other call tables", "int 0x80, x32 numbers, an i386 program", "ENOSYS, or killed", KERNEL),
    Check(9, "typing for the caller", "TIOCSTI and TIOCLINUX, with high bits set as well, on stdin and /dev/tty",
          "EPERM; the caller's shell gets no character", KERNEL),
    Check(10, "keyrings", "keyctl, add_key, request_key", "refused; a key of the caller's session is not found",
          KERNEL),
    Check(11, "the new mount calls", "fsopen to fsmount, open_tree, open_tree_attr, move_mount, mount_setattr, "
          "statmount, listmount", "refused like mount(2)", KERNEL),
    Check(12, "namespaces within", "unshare and clone of each kind, clone3, setns", "EPERM; clone3 ENOSYS, so that C "
          "libraries fall back to clone", KERNEL),
    Check(13, "calls of no use inside", "bpf, perf, userfaultfd, io_uring, kexec, modules, handles of files, reading "
          "pid 1 by ptrace, process_vm_readv, pidfd_getfd", "EPERM or ENOSYS", KERNEL),
    Check(14, "device nodes", "mknod wherever one may write; open nodes that somebody planted in the layer",
          "EPERM; EACCES", KERNEL),
    Check(15, "mounts", "unmount, remount, cover and move each mount there is", "EPERM", KERNEL),
    Check(16, "a fresh /proc", "unshare pids and mounts, then mount a /proc without the masks", "refused", KERNEL),
    Check(17, "processes outside", "kill everybody, signal, trace and look at a process of outside and at pid 1",
          "only its own are there", KERNEL),
    Check(18, "network off", "reach a port of the machine's loopback, abstract sockets, sockets by path, other "
          "families, with `--network none`; abstract sockets with the machine's network", "nothing is reached", ALL),
    Check(19, "shared memory", "open System V and POSIX shared memory and message queues of outside", "not there",
          KERNEL),
)  # fmt: skip

LAUNCHER = (
    Check(20, "descriptors", "start with files, folders and O_PATH descriptors open from 3 to 200", "0, 1 and 2 "
          "inside; none of them with pid 1 either", ALL),
    Check(21, "the working folder", "start from a folder by descriptor, a missing one, one by a link to pid 1's "
          "descriptors", "refused, or a folder within the new root", ALL),
    Check(22, "the program itself", "open pid 1's and a joiner's program for writing, before and after its end",
          "EACCES; the file is as it was", ALL),
    Check(23, "race with a joiner", "replace /bin/sh, /etc/passwd, ld.so.preload and libraries while others join",
          "nothing of the app's runs before everything is given up", APPS),
    Check(24, "a forged app", "an app writes lock lines, sockets, plans and logs as the store has them; root joins, "
          "lists, stops", "the store is out of its reach, and nothing it wrote is taken for the store's", APPS),
    Check(25, "odd mount points", "a base whose /proc, /dev, /dev/pts, /dev/null, /sys, /tmp, /etc or /run is a "
          "link (absolute, relative, by ..) or a file", "refused, or within the root", ("one-id", "subids", "root")),
    Check(26, "race at a share", "an app swaps folder and link within a share while another starts with it, 10,000 "
          "rounds", "no mount leads outside", APPS),
    Check(27, "what covers", "replace /dev/null and /dev/pts/0 while covers are made of them", "a cover is the null "
          "device, looked at by descriptor", APPS),
    Check(28, "a false /proc", "start where /proc is a tmpfs or a bind with files made up", "nothing is written to "
          "what is no procfs", ("one-id", "root")),
    Check(29, "hostile environment", "LD_*, PYTHON*, GCONV_PATH, PATH, BASH_ENV, modules in the working folder",
          "nothing of it is loaded or run", ALL),
    Check(30, "odd words", "names and commands with dashes, slashes, dots, control characters, 300 bytes",
          "a bad name is exit status 2; a command's words arrive as they are", ALL),
    Check(31, "groups", "start with a supplementary group; read a file of 0640 of that group", "denied, or refused "
          "with a clear message", ALL),
    Check(32, "odd limits", "start with nofile 16, fsize 0, blocked SIGTERM, ignored SIGCHLD, umask 0", "as it should "
          "be, or a clear message", ALL),
    Check(33, "the terminal goes", "end the terminal, close 0 to 2, fill the pipe, leave it", "no hang, the status "
          "is kept, 0 to 2 are /dev/null", ALL),
)  # fmt: skip

STORE = (
    Check(34, "reset through links", "an upper of links outwards, hard links, fifos, sockets, closed folders",
          "only what is inside goes; names are quoted", ALL),
    Check(35, "deep and wide trees", "3,000 levels; a folder with a million entries", "every command on layers works",
          ALL),
    Check(36, "a layer that moves", "swap folders and links while a layer is read", "no file of the machine is read "
          "or changed", ALL),
    Check(37, "fifos and giants", "a fifo, a socket and a sparse file of exabytes in a layer", "no hang; holes stay",
          ALL),
    Check(38, "setuid on disk", "an app makes setuid and capable files; another user runs them by the store's path",
          "out of reach", ("root", "try")),
    Check(39, "setuid at a commit", "setuid, capabilities, devices in what is committed to the machine",
          "named before it is done; left out where that is asked for", ("try",)),
    Check(40, "where a commit goes", "links, mounts and changed files at the targets", "never followed; a conflict, "
          "nothing half done", ("try",)),
    Check(41, "archives: paths", "..; absolute names, links and hard links outwards, overlong chains", "refused; "
          "nothing beside the target changes", APPS),
    Check(42, "archives: types", "devices, odd modes, ids out of range, negative times", "refused", APPS),
    Check(43, "archives: attributes", "overlay marks, capabilities, labels in PAX headers", "an allow list is kept, "
          "overlay marks never", APPS),
    Check(44, "archives: whiteouts", "whiteouts of odd names, in odd places, through links", "refused or confined",
          APPS),
    Check(45, "archives: bombs", "zeros without end, millions of entries, deep folders, giant headers", "stopped at a "
          "limit; nothing stays", APPS),
    Check(46, "archives: digests", "cut blobs, wrong digests, 10,000 layers", "refused", APPS),
    Check(47, "marks in a layer", "an upper with overlay marks as a plain user would have them", "taken away where a "
          "layer changes hands", APPS),
)  # fmt: skip

ROBUSTNESS = (
    Check(48, "killed anywhere", "SIGKILL the launcher, its helpers and pid 1 at any point of any change", "the next "
          "command works; nothing is left", ALL),
    Check(49, "power cut", "cut the power during the same changes", "the old state or the new", ("root", "try")),
    Check(50, "many at once", "50 starts of one app; starts against resets, removes, renames", "one mount per upper; "
          "others join or are told", APPS),
    Check(51, "one upper, two mounts", "force a second mount of an upper", "refused", APPS),
    Check(52, "no room", "fill the disk at each step", "a clear message; the old state; reset works", APPS),
    Check(53, "shortages", "few descriptors, processes, namespaces, mounts, little memory", "the message names the "
          "limit; nothing is left", ALL),
    Check(54, "odd stores", "a store that is read-only, somebody else's, on an overlay or a vfat", "refused with the "
          "reason", APPS),
    Check(55, "a damaged catalog", "cut, flipped, deleted, newer", "said; other apps go on", APPS),
    Check(56, "the clock", "jump by years, to 1970", "durations hold; nothing is collected for its time alone", APPS),
    Check(57, "a reboot", "another boot id, pids used again", "what runs is told by locks, not by stored pids", APPS),
    Check(58, "pid 1", "10,000 orphans, signals of all kinds, pid 1 killed, daemons", "no zombies; signals passed on; "
          "all end with pid 1", ALL),
    Check(59, "helpers left over", "kill the launcher between the making and the use of a helper", "none stays",
          ("subids", "root")),
    Check(60, "stale mounts", "a mount of an upper kept alive in another namespace", "found by the lock, said",
          APPS),
    Check(61, "a base that changed", "edit or upgrade a base beneath an app", "noticed", APPS),
    Check(62, "ranges of ids", "70,000 apps, ranges of removed apps, ranges taken elsewhere", "no overlap",
          ("root", "try")),
    Check(63, "size", "1,000 apps, 400 layers, 100 starts at once", "no cost that grows with the square", APPS),
)  # fmt: skip

GROUPS = {
    "Kernel surface": KERNEL_SURFACE,
    "The launcher as a victim": LAUNCHER,
    "The store as hostile input": STORE,
    "Robustness": ROBUSTNESS,
}
CHECKS = {check.number: check for group in GROUPS.values() for check in group}

# (number, mode): why it cannot be shown here.
NOT_SHOWN: dict[tuple[int, str], str] = {
    (number, mode): reason
    for numbers, modes, reason in (
        ((36,), ("try",), "a throwaway is read once its command has ended"),
        ((53,), ("try",), "a spare is not started where anything is short: Python is asked, as for an app"),
        ((56,), APPS, "the clock of this machine cannot be set; the code asks CLOCK_MONOTONIC"),
        ((60,), APPS, "a mount in a foreign namespace cannot keep an upper busy unseen: the app's lock is pid 1's"),
    )
    for number in numbers
    for mode in modes
}  # fmt: skip

# The number, the modes (``all``, ``apps`` or one or more), the beginning of the tests' node ids below tests/.
_COVERED = """
34 all store/test_apps.py::test_reset_does_not_follow_links
34 all trees/test_trees.py::test_remove
34 all store/test_trash.py::test_any_kind_of_thing
34 all cli/test_verbs.py::test_odd_names_are_quoted
35 all trees/test_sizes.py::test_three_thousand_levels
35 all trees/test_sizes.py::test_a_folder_with_many_entries
34 all hostile/test_store.py::test_every_command_over_a_hostile_layer
35 all hostile/test_store.py::test_removing_a_hostile_layer
36 apps hostile/test_store.py::test_live_swaps
36 apps hostile/test_store.py::test_importing_what_is_swapped_meanwhile
37 all hostile/test_store.py::test_every_command_over_a_hostile_layer
37 all trees/test_diff.py::test_one_byte_of_a_sparse_terabyte
37 all trees/test_grid.py::test_cell
38 root,try store/test_opening.py::test_wrong_mode
39 try commit/test_cli_try.py::test_privileged_entries_are_named
39 try commit/test_cli_pick.py::test_try_names_what_is_privileged_before_it_asks
40 try commit/test_cli_targets.py::test_what_lies_at_a_target_is_never_followed
40 try commit/test_cli_targets.py::test_forced_it_replaces_the_link_and_not_what_it_names
40 try commit/test_cli_targets.py::test_what_is_mounted_over_is_not_replaced
40 try commit/test_engine_verbs.py::test_no_link_of_the_hosts_is_followed
40 try commit/test_cli.py::test_a_conflict_is_listed_and_nothing_is_written
38 root,try launch/test_isolation.py::test_owners_outside
38 root,try hostile/test_store.py::test_a_setuid_file_of_a_layer_is_out_of_reach
41 apps hostile/test_archives.py::test_what_is_never_unpacked
42 apps hostile/test_archives.py::test_what_is_never_unpacked
43 apps hostile/test_archives.py::test_what_is_never_unpacked
43 apps hostile/test_archives.py::test_odd_but_right
44 apps hostile/test_archives.py::test_what_is_never_unpacked
44 apps hostile/test_images.py::test_hostile_layers
44 root archives/test_layers.py::test_what_is_refused
44 root images/test_layers.py::test_hostile_layers
45 apps hostile/test_archives.py::test_bombs
45 root archives/test_headers.py::test_what_is_refused
45 root archives/test_headers.py::test_windows_of_zstd
45 root images/test_layers.py::test_a_bomb
46 apps hostile/test_images.py::test_digests
46 root images/test_files.py::test_a_changed_layer_is_found
45 apps hostile/test_archives.py::test_too_many_entries
47 apps bases/test_bases.py::test_marks_of_overlayfs_are_neither_imported_nor_overlooked
47 apps trees/test_diff.py::test_attributes_that_look_like_overlayfs
47 apps hostile/test_store.py::test_marks_of_overlayfs_do_not_travel
48 apps hostile/test_archives.py::test_killed_while_it_unpacks
48 one-id launch/test_kill.py::test_kills_at_random
48 subids launch/test_kill.py::test_kills_at_random
48 root launch/test_kill.py::test_kills_at_random
48 apps store/test_crash.py::test_killed_at_random
48 apps snapshots/test_crash.py::test_killed
48 try commit/test_engine.py::test_killed_at_some_moments
48 try commit/test_engine.py::test_killed_at_every_moment
48 try door/test_spares.py::test_killed_in_the_middle_nothing_is_lost
49 try commit/test_power.py::test_some_cuts_of_commits
49 try commit/test_power.py::test_many_cuts
49 root commit/test_power.py::test_some_cuts_of_snapshots
49 root commit/test_power.py::test_many_cuts
50 apps instances/test_many.py::test_many_starts_are_one_instance
50 apps instances/test_many.py::test_starts_and_resets
51 apps launch/test_kill.py::test_a_start_right_after_a_kill_never_mounts_twice
52 try commit/test_engine_verbs.py::test_no_room_on_another_file_system
52 apps launch/test_surroundings.py::test_a_full_disk
52 apps store/test_reserve.py::test_what_makes_room_works
53 apps launch/test_signals.py::test_few_descriptors
53 apps launch/test_signals.py::test_few_processes
53 apps launch/test_surroundings.py::test_user_namespaces_forbidden_by_sysctl
54 apps store/test_opening.py::test_overlay_is_refused
54 apps store/test_opening.py::test_read_only_file_system
54 apps store/test_opening.py::test_another_owner
55 apps store/test_opening.py::test_garbage_catalog
55 apps store/test_opening.py::test_newer_schema
55 apps store/test_opening.py::test_missing_catalog_is_not_made_anew
57 apps store/test_locks.py::test_stale_line_names_nobody
58 all launch/test_signals.py::test_orphans_are_reaped
58 all launch/test_signals.py::test_a_signal_reaches
58 all launch/test_kill.py::test_pid_one_is_killed
59 subids,root hostile/test_archives.py::test_killed_while_it_unpacks
59 subids,root launch/test_kill.py::test_kills_at_random
61 apps bases/test_bases.py::test_every_alteration_is_found_and_changes_the_digest
62 root,try store/test_apps.py::test_ranges
62 root,try store/test_apps.py::test_lowest_free
62 root,try store/test_apps.py::test_taken_elsewhere
63 apps store/test_concurrent.py::test_many_apps_open_fast_enough_to_count
63 apps trees/test_diff.py::test_many_layers
63 apps launch/test_together.py::test_many_apps_at_once
"""


def _covered() -> dict[tuple[int, str], tuple[str, ...]]:
    found: dict[tuple[int, str], tuple[str, ...]] = {}
    for line in _COVERED.split("\n")[1:-1]:
        number, modes, test = line.split()
        for mode in {"all": ALL, "apps": APPS}.get(modes) or modes.split(","):
            found[int(number), mode] = (*found.get((int(number), mode), ()), f"tests/{test}")
    return found


# (number, mode): the tests, by the beginnings of their node ids.
COVERED = _covered()


def document() -> str:
    """Return docs/checks.md."""
    lines = [
        "# The checks",
        "",
        "What layerrun's isolation is held to, one line a check. `make escape` runs the suite that plays the attacker"
        " (tests/escape)",
        "and prints what was seen for each check in each mode; `make test` runs it as well. This page is made by"
        " tools/checks.py.",
        "",
        "Modes:",
        "",
        *(f"- **{mode}**: {meaning}" for mode, meaning in MODES.items()),
    ]
    for title, group in GROUPS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| | check | what is tried | what must be seen | modes |",
            "| --- | --- | --- | --- | --- |",
        ]
        for one in group:
            modes = "all" if set(ALL) <= set(one.modes) else ", ".join(one.modes)
            modes += " and undo" if one.modes == KERNEL else ""
            lines.append(f"| {one.number} | {one.name} | {one.tried} | {one.seen} | {modes} |")
    lines += ["", "## Not shown", "", "What the suite cannot show on the machine it runs on, and why:", ""]
    reasons: dict[str, list[int]] = {}
    for (number, _), reason in NOT_SHOWN.items():
        if number not in reasons.setdefault(reason, []):
            reasons[reason].append(number)
    lines += [f"- {', '.join(map(str, numbers))}: {reason}." for reason, numbers in reasons.items()]
    return "\n".join(lines) + "\n"
