"""Apps with profiles, in stores without anything that runs."""

import os

from layerrun.model import Base, BaseKind, IdMode

BASE = Base(
    id="b" * 16,
    name="debian",
    kind=BaseKind.TREE,
    digest="sha256:0",
    ids=IdMode.RANGE,
    source="/x",
    created="2026-01-01T00:00:00Z",
    entries=1,
    size=1,
)


def add_base(store, name="debian", digit="b"):
    os.makedirs(f"{store.path}/bases/{digit * 16}/tree")
    with open(f"{store.path}/bases/{digit * 16}/manifest", "w"):
        pass
    import attrs

    with store.catalog.transaction():
        store.catalog.add_base(attrs.evolve(BASE, id=digit * 16, name=name))


def token(store, app, text=None):
    path = f"{store.app_dir(app)}/data/upper/token"
    if text is not None:
        with open(path, "w") as file:
            file.write(text)
        return text
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def plan(store, name):
    os.makedirs(f"{store.path}/plans", exist_ok=True)
    with open(f"{store.path}/plans/{name}", "w"):
        pass


def has_plan(store, name):
    return os.path.exists(f"{store.path}/plans/{name}")


def names(store):
    return [app.name for app in store.apps()]
