"""From an app to its plan: every decision of a start is made here, and read from the plan afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import DamagedError
from layerrun.model import HOST_BASE, App, AppKind, Base, BaseKind, Home, IdMode
from layerrun.native import cgroups
from layerrun.policy import Grants, NetworkKind
from layerrun.runtime import confine, identity, names, network, pasta
from layerrun.runtime.environment import NOTIFY, add_environment
from layerrun.runtime.imaged import folder_of_image
from layerrun.runtime.limits import add_limits
from layerrun.runtime.network import is_given
from layerrun.runtime.plan import Lack, Plan, Policy
from layerrun.runtime.resolve import resolve_in_root
from layerrun.runtime.skeleton import Skeleton
from layerrun.runtime.stack import HostStack, add_tree, beneath, overlay_flags
from layerrun.runtime.uppers import Uppers
from layerrun.runtime.volumes import volume_of

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["compile_plan"]

# The machine's own; every sandbox has its own of these or none, and nothing of them is kept.
_PRIVATE = ("/dev", "/proc", "/run", "/sys")
_VOLATILE = ("/run", "/tmp", "/dev")
_MASKED = ("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
# Only the machine's own root could open these, whatever its capabilities.
_MASKED_FROM_ROOT = ("kmsg", "kpagecgroup", "kpagecount", "kpageflags", "mtrr", "acpi")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@attrs.define
class _Compiler:
    store: Store
    app: App
    plan: Plan
    skeleton: Skeleton
    uppers: Uppers
    base_root: str  # where it is to be seen now
    who: identity.Person
    grants: Grants
    volume: tuple[str, str] | None = None
    base_image: str = ""  # a file, if the base is to be mounted
    bound: list[tuple[str, ...]] = attrs.field(factory=list)
    in_sys: list[tuple[str, ...]] = attrs.field(factory=list)
    session_env: dict[str, str] = attrs.field(factory=dict)
    wanted: list[tuple[str, bool]] = attrs.field(factory=list)

    @property
    def over_host(self) -> bool:
        return self.app.config.base == HOST_BASE

    @property
    def throwaway(self) -> bool:
        """A throwaway over the host sees what a direct run would: its /tmp, its environment."""
        return self.app.kind is not AppKind.APP and self.over_host

    @property
    def notifies(self) -> bool:
        """A service manager wants to know of an app when it is ready, sd_notify(3)."""
        return self.app.kind is AppKind.APP and bool(os.environ.get("NOTIFY_SOCKET"))

    @property
    def private(self) -> tuple[str, ...]:
        return _PRIVATE if self.throwaway else (*_PRIVATE, "/tmp")

    def stack(self) -> None:
        data = os.path.join(self.store.app_dir(self.app), "data")
        if self.volume is not None:
            self.plan.add("volume", *self.volume)
        layers = [
            os.path.join(self.store.path, "layers", layer, "tree") for layer in reversed(self.app.stack)
        ]
        if self.app.ids is IdMode.RANGE and (layers or not self.over_host):
            self.plan.add("store", self.store.path)
        if self.over_host:
            host = HostStack(
                self.plan, self.app, data, self.uppers, self.skeleton, layers=layers, private=self.private
            )
            host.build()
            self.mount_points()
            host.place(self.wanted)
            self.plan.add("data", data)
            if self.app.ids not in (IdMode.RANGE, IdMode.NONE):
                self._root_over_skeleton(layers)
            for op in host.late:
                self.plan.add(*op)
        else:
            self.mount_points()
            lowers = [*layers, self.base_image or self.base_root]
            if self.skeleton.entries:
                lowers.append(self.skeleton.store(self.store, make=self.uppers.make))
            add_tree(self.plan, self.app, lowers, data, self.uppers, image=self.base_image)
            self.plan.note("/", Policy.OVERLAID, f"the base {self.app.config.base}")

    def _root_over_skeleton(self, layers: list[str]) -> None:
        place = self.uppers.prepare("/")
        if place is None:
            raise AssertionError("the upper's own root is a folder")
        self.plan.add("overlay", "/", *place, "userxattr")
        for lower in [*layers, self.skeleton.store(self.store, make=self.uppers.make)]:
            self.plan.add("lower", lower, "")

    def mount_points(self) -> None:
        """See to it that everything that will be mounted finds a place that is no change of the upper."""
        for top in (*_PRIVATE, "/tmp"):
            self._need(top, folder=True)
        for share in self.app.config.shares:
            if os.path.realpath(share.source) != share.source:
                self._lack_share(
                    share.source,
                    "it is, or lies behind, a symbolic link now",
                    "a share is fixed to what it was when it was made: remove the link, or make the app anew",
                )
                continue
            self._bind(share.source, share.target, "ro" if share.readonly else "", must=True)
        self._home()
        self._resolver()
        self._session()

    def _lack_share(self, source: str, why: str, hint: str) -> None:
        """Note a share that cannot be had: no start goes without it, but what only looks at the app does."""
        self.plan.lacks.append(Lack("share", source, why, asked=True, hint=hint))

    def _need(self, target: str, *, folder: bool) -> str:
        """Return where ``target`` leads inside; put a mount point there if the base has none."""
        path, there = resolve_in_root(self.base_root, target)
        if not there and not any(beneath(path, top) and path != top for top in _VOLATILE):
            if self.over_host:
                self.wanted.append((path, folder))
            elif folder:
                self.skeleton.folder(path)
            else:
                self.skeleton.file(path)
        return path

    def _bind(self, source: str, target: str, flags: str, *, must: bool) -> None:
        """Note a bind of a canonical path; it is added once the tmpfs mounts beneath it are there.

        Links of the path are not looked up again: what became one since it was looked at stops the start.
        """
        if must and not os.path.exists(source):
            self._lack_share(source, "it does not exist", "make it, or change the app's shares")
            return
        folder = os.path.isdir(source)
        path = self._need(target, folder=folder)
        volatile = next((top for top in _VOLATILE if beneath(path, top) and path != top), None)
        if volatile is not None and not (self.throwaway and volatile == "/tmp"):
            parents = path[len(volatile) + 1 :].split("/")
            for i in range(1, len(parents)):
                self.bound.append(("dir", "/".join([volatile, *parents[:i]]), "0755"))
            self.bound.append(("dir" if folder else "file", path, "0755" if folder else "0644"))
        words = [flags, "nosuid", "nodev", "rec" if must else "", "" if must else "try"]
        if self.app.ids is IdMode.RANGE and must:
            words.append("idmap")
        self.bound.append(("bind", source, path, ",".join(filter(None, words))))
        if must:
            how = "a share, read-only" if "ro" in flags else "a share"
            self.plan.note(target, Policy.SHARED, f"{how}: {source}")

    def _home(self) -> None:
        home = self.who.home
        if self.app.config.home is Home.SHARE:
            real = os.path.realpath(os.path.expanduser("~"))
            self._bind(real, home, "", must=True)
        elif self.app.config.home is Home.FRESH:
            path = self._need(home, folder=True)
            self.bound += self._fresh_home(path)
            self.plan.note(home, Policy.PRIVATE, "a home of its own")

    def _fresh_home(self, path: str) -> list[tuple[str, ...]]:
        """Return what mounts a home of the app's own: its folder; over those of its layers, where any has one."""
        idmap = "idmap" if self.app.ids is IdMode.RANGE else ""
        layers = [
            os.path.join(self.store.path, "layers", layer, "home") for layer in reversed(self.app.stack)
        ]
        lowers = [layer for layer in layers if os.path.isdir(layer)]
        if lowers:
            overlay = ("overlay", path, *self.uppers.prepare_home(), overlay_flags(self.app))
            return [overlay, *(("lower", lower, idmap) for lower in lowers)]
        source, flags = os.path.join(self.store.app_dir(self.app), "data", "home"), f"nosuid,nodev,{idmap}"
        if self.volume is not None:
            source, flags = "home", flags + ",data"
        return [("bind", source, path, ",".join(filter(None, flags.split(","))))]

    def _resolver(self) -> None:
        """With the host's network an app needs the host's resolver, which may lie in the host's /run."""
        kind = self.grants.network.kind
        if kind is not NetworkKind.HOST:
            self._own("hosts")
            if not is_given(self.store, self.app, self.grants) and self.uppers.make:
                network.write_files(self.store, self.app, self.grants)
            if kind is NetworkKind.PRIVATE:
                self._own("resolv.conf")
            return
        if not os.path.exists("/etc/resolv.conf"):
            return
        source = os.path.realpath("/etc/resolv.conf")
        if self.over_host:
            if beneath(source, "/run"):
                self._bind(source, source, "ro", must=False)
            return
        self._bind(source, "/etc/resolv.conf", "ro", must=False)
        if not resolve_in_root(self.base_root, "/etc/hosts")[1] and os.path.exists("/etc/hosts"):
            self._bind(os.path.realpath("/etc/hosts"), "/etc/hosts", "ro", must=False)

    def _own(self, name: str) -> None:
        """Show a file of the app's folder as /etc/NAME."""
        source = os.path.join(self.store.app_dir(self.app), names.FOLDER, name)
        self._bind(source, f"/etc/{name}", "ro", must=False)
        self.bound[-1] = (*self.bound[-1][:-1], "ro,nosuid,nodev")

    def _session(self) -> None:
        """What is granted of the caller's session and of the host's devices; the host's taste, over a base."""
        if self.throwaway or (self.over_host and not self.grants.sockets and not self.grants.devices):
            return
        from layerrun.runtime.desktop import Desktop
        from layerrun.runtime.devices import Devices
        from layerrun.runtime.session import Session
        from layerrun.runtime.surroundings import Surroundings

        session = Session(self.plan)
        folder = self.store.app_dir(self.app)
        desktop = Desktop(
            self.plan, session, self.grants, self.app.ids, self.who.uid, folder, make=self.uppers.make
        )
        desktop.add()
        devices = Devices(self.plan, session, self.grants, self.app.ids)
        devices.add()
        around = Surroundings(self.plan, session, self.base_root)
        if not self.over_host:
            around.zone()
            if desktop.shown:
                around.looks()
                around.language()
        self.bound += [*desktop.ops, *devices.ops, *around.ops]
        self.in_sys += devices.sys
        self.session_env |= desktop.env | around.env
        self.plan.bus = desktop.bus

    def own_mounts(self) -> None:
        """Add /run, /tmp, /proc, /dev, an empty /sys, and what is bound into them."""
        plan, uid = self.plan, self.who.uid
        plan.add("tmpfs", "/run", "0755", "")
        plan.add("dir", "/run/lock", "1777")
        plan.add("dir", "/run/user", "0755")
        plan.add("dir", f"/run/user/{uid}", "0700")
        if self.grants.user is not None:
            plan.add("own", f"/run/user/{uid}")
        if "/tmp" in self.private:
            plan.add("tmpfs", "/tmp", "1777", "")
        plan.add("proc", "/proc")
        plan.add("dev", "/dev")
        plan.add("tmpfs", "/sys", "0555", "noexec" if self.in_sys else "ro,noexec")
        for op in self.in_sys:
            plan.add(*op)
        if self.in_sys:
            plan.add("readonly", "/sys", "")
        for top in self.private:
            plan.note(top, Policy.PRIVATE, "empty at every start" if top in _VOLATILE else "its own")
        if self.notifies:
            plan.add("notify")
            plan.add("file", NOTIFY, "0666")
            plan.add("bind", os.path.join(self.store.app_dir(self.app), "notify"), NOTIFY, "nosuid,nodev")
        for op in self.bound:
            plan.add(*op)
        if self.grants.user is not None and self.app.config.home is Home.FRESH:
            plan.add("own", self.who.home)

    def hides(self) -> None:
        """Cover what is hidden: parts of /proc, the store itself, what the app asks for."""
        for name in (*_MASKED, *(_MASKED_FROM_ROOT if self.app.ids is IdMode.NONE else ())):
            self.plan.add("mask", f"/proc/{name}", "try")
        if self.app.ids is not IdMode.NONE and not self.grants.has("nesting"):
            self.plan.add("sysctl", "user/max_user_namespaces", 0)
        for name in _READ_ONLY:
            self.plan.add("readonly", f"/proc/{name}", "try")
        if self.over_host:
            self.plan.add("mask", self.store.path, "try")
            self.plan.note(self.store.path, Policy.HIDDEN, "the store")
        for path in self.app.config.hides:
            self.plan.add("mask", path, "try")
            self.plan.note(path, Policy.HIDDEN, "asked for with --hide")


def _isolation(store: Store, plan: Plan, app: App, grants: Grants) -> None:
    plan.add("namespace", "cgroup")
    group_mount = cgroups.mount_point() if app.kind is AppKind.APP else None
    if group_mount is not None:
        plan.add("cgroup", group_mount, cgroups.group_name(app.id))
    if grants.network.kind is not NetworkKind.HOST:
        plan.add("namespace", "net-given" if is_given(store, app, grants) else "net")
        if grants.network.kind is NetworkKind.PRIVATE and os.geteuid() != 0:
            for word in pasta.words(grants.publish):
                plan.add("pasta", word)
        plan.add("hostname", names.host_name(app))


def _person(
    store: Store, app: App, plan: Plan, grants: Grants, root: str
) -> tuple[identity.Person, tuple[int, ...]]:
    if grants.user is None:
        return identity.person(app), ()
    from layerrun.runtime.people import choose_user
    from layerrun.store.plans import signature

    layers = [os.path.join(store.path, "layers", layer, "tree") for layer in reversed(app.stack)]
    chosen = choose_user(app, grants.user, [f"{store.app_dir(app)}/data/upper", *layers, root])
    plan.seen |= {("file", path): signature(path) for path in chosen.files}
    return chosen.person, chosen.groups


def _check_data(data_fd: int, app: App) -> None:
    for name in ("upper", "work"):
        try:
            found = stat.S_ISDIR(os.stat(name, dir_fd=data_fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            found = False
        if not found:
            raise DamagedError(
                f"the data of {app.name!r} is damaged: {name!r} is not there",
                hint=f"`layerrun reset {app.name}` begins anew; `layerrun doctor` tells more",
            )


def compile_plan(
    store: Store,
    app: App,
    argv: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    make: bool = False,
) -> Plan:
    """Return the plan of a start of ``app`` as things stand now.

    With ``make``, for which the app must be locked, what the plan needs is made in the store:
    skeletons of mount points, roots of overlays in the upper. ``argv`` is what is run instead of the
    app's own command. Raises `UsageError`, `DamagedError`, `LaunchError`.
    """
    base = store.base_of(app)
    if base.kind is not BaseKind.IMAGE:
        return _compile(store, app, argv, base, store.base_path(base), env=env, make=make)
    # It is mounted to be looked at; a start mounts it by itself.
    mounted = store.open_base(base)
    try:
        return _compile(store, app, argv, base, f"/proc/self/fd/{mounted}", env=env, make=make)
    finally:
        os.close(mounted)


def _compile(
    store: Store,
    app: App,
    argv: Sequence[str] | None,
    base: Base,
    root: str,
    *,
    env: Mapping[str, str] | None,
    make: bool,
) -> Plan:
    """Compile over a base that is to be seen at ``root``."""
    plan = Plan()
    grants = app.config.policy.grants()
    who, groups = _person(store, app, plan, grants, root)
    identity.add_identity(plan, app, who)
    if groups:
        plan.add("groups", ",".join(map(str, groups)))
    _isolation(store, plan, app, grants)
    data_fd = store.open_data(app)
    try:
        _check_data(data_fd, app)
        uppers = Uppers(data_fd, unprivileged=os.geteuid() != 0 and base.name == HOST_BASE, make=make)
        compiler = _Compiler(store, app, plan, Skeleton(), uppers, root, who, grants)
        compiler.volume = volume_of(store, app)
        compiler.base_image = store.base_path(base) if base.kind is BaseKind.IMAGE else ""
        compiler.stack()
    finally:
        os.close(data_fd)
    compiler.own_mounts()
    compiler.hides()
    add_limits(plan, app, grants, store.app_dir(app))
    confine.add_confinement(plan, app, grants, who)
    add_environment(
        plan,
        app,
        compiler.who,
        inherits=compiler.throwaway,
        notifies=compiler.notifies,
        values=compiler.session_env,
        extra=env or {},
    )
    plan.add("cwd", folder_of_image(base, root) or compiler.who.home)
    for word in app.config.command if argv is None else argv:
        plan.add("arg", word)
    return plan
