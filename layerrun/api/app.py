"""Apps, for programs."""

from __future__ import annotations

from layerrun.api.layered import Layered
from layerrun.model import AppConfig, AppKind, Snapshot, check_name

__all__ = ["App"]


class App(Layered):
    """An app of a store. Get one by `Store.app` or `Store.create`.

    It stands for the app that had the name then: `reset`, `remove` and the like raise `layerrun.errors.NotFoundError`
    once that one was removed, even if another has taken its name.

    Attributes:
        store: the store it is in.
        name: its name; a profile's is ``NAME@PROFILE``.
        id: what names it for good; an app keeps it when it is renamed.
    """

    kind = AppKind.APP

    def configure(self, config: AppConfig, *, kill: bool = False) -> None:
        """Give it another configuration, such as ``attrs.evolve(app.config, hides=("/srv",))``; its data stays.

        Args:
            config: all of it; the base and the layers must be what they are.
            kill: end it, and its profiles, first if they run.

        Raises:
            layerrun.errors.BusyError: it runs, or a profile of it does.
            layerrun.errors.UsageError: something makes no sense.
        """
        from layerrun.runtime import apps, instances

        with self.store.opened() as store:
            app = store.app_again(self._record)
            family = [app, *store.profiles(app)]
            instances.ended_first(store, family, lambda: apps.configure(store, app, config), kill=kill)

    # Profiles

    def profiles(self) -> list[App]:
        """Return its profiles, by name: the same app, with data of their own."""
        with self.store.opened() as store:
            return [App(self.store, found) for found in store.profiles(store.app_again(self._record))]

    def profile(self, profile: str) -> App:
        """Return one of its profiles, which is made if it is new.

        Raises:
            layerrun.errors.UsageError: the name makes no sense, or this is a profile itself.
        """
        from layerrun.runtime import apps

        check_name(profile, "name of a profile")
        with self.store.opened() as store:
            record = store.app_again(self._record)
            return App(self.store, apps.profile(store, record.name, profile)[0])

    # Its data

    def reset(self, *paths: str, kill: bool = False) -> list[str]:
        """Clear its data; with ``paths``, let the base show through where one of these patterns matches.

        Without patterns it takes a moment, whatever it holds; the deleting is done in the background.

        Args:
            paths: patterns such as ``/etc/**``.
            kill: end it first if it runs.

        Returns:
            The paths that came back; without patterns an empty list.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import data, instances

        with self.store.opened() as store:
            app = store.app_again(self._record)

            def change() -> list[str]:
                if paths:
                    return data.reset_paths(store, app, paths)
                data.reset(store, [app])
                return []

            return instances.ended_first(store, [app], change, kill=kill)

    def clear_cache(self) -> list[str]:
        """Drop what it keeps in its cache folders; return those that held anything.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import data

        with self.store.opened() as store:
            return data.clear_cache(store, store.app_again(self._record))

    # Its snapshots

    def snapshot(self, tag: str | None = None, *, kill: bool = False) -> Snapshot:
        """Make a snapshot of its data, in a moment, whatever it holds: nothing is copied.

        Args:
            tag: what to call it, beside its number.
            kill: end what runs in it first.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
            layerrun.errors.ExistsError: it has another snapshot with this tag.
            layerrun.errors.UsageError: a bad tag, or an app whose data lies in an image (``max_size``).
        """
        return self._snapshot(tag, kill=kill)

    def branch(self, name: str, snapshot: Snapshot | str | int | None = None) -> App:
        """Make another app that begins with what this one has, or had at a snapshot. Nothing is copied.

        Args:
            name: of the new one; ``NAME@PROFILE`` makes a profile of this one.
            snapshot: one of `snapshots`, or its tag, or its number. Without it this one must not run.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
            layerrun.errors.ExistsError: the name is taken.
            layerrun.errors.NotFoundError: there is no such snapshot.
        """
        return App(self.store, self._branch(name, snapshot))

    def clone(self, name: str) -> App:
        """Make another app with all that this one has, its snapshots too. It must not run; errors as of `branch`."""
        from layerrun.runtime import snapshots

        with self.store.opened() as store:
            return App(self.store, snapshots.clone(store, store.app_again(self._record), name))

    def commit(self, *, kill: bool = False) -> None:
        """Make what it has now its factory state, to which `reset` goes back; its profiles have it too.

        Args:
            kill: end what runs, in it and in its profiles, first.

        Raises:
            layerrun.errors.BusyError: it runs, or a profile of it does.
            layerrun.errors.UsageError: it is a profile, or its data lies in an image (``max_size``).
        """
        from layerrun.runtime import instances, snapshots

        with self.store.opened() as store:
            app = store.app_again(self._record)
            family = [app, *store.profiles(app)]
            instances.ended_first(store, family, lambda: snapshots.factory(store, app), kill=kill)

    # The app itself

    def rename(self, name: str) -> None:
        """Give it another name, while it runs if need be; its profiles go along.

        Raises:
            layerrun.errors.ExistsError: the name is taken.
        """
        with self.store.opened() as store:
            self._record = store.rename_app(store.app_again(self._record).name, name)
        self.name = self._record.name

    def remove(self, *, kill: bool = False, keep_data: bool = False) -> list[str]:
        """Remove it with its profiles and their data.

        Args:
            kill: end what runs first.
            keep_data: leave the data in the store's folder ``kept``.

        Returns:
            With ``keep_data``, where it is kept: paths.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import instances, squash

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return instances.ended_first(
                store,
                [app, *store.profiles(app)],
                lambda: squash.remove(store, [app, *store.profiles(app)], keep_data=keep_data),
                kill=kill,
            )
