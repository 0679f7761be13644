"""layerrun: run any program in a layer of its own, and clear its data at once.

`Store` is the way in for programs: ``layerrun.Store().app("web").run(["nginx", "-v"])``; see docs/api.md. What it
raises stands in `layerrun.errors`. The rooms below may be used as a library as well: `layerrun.store`,
`layerrun.bases`, `layerrun.layers` and `layerrun.runtime`.

Nothing is imported before it is used, because every import is paid for at each start of the command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerrun import errors
    from layerrun.api import App, Base, Popen, Store, Throwaway

__all__ = ["App", "Base", "Popen", "Store", "Throwaway", "__version__", "errors"]

# The one place that says it: the package's metadata and `layerrun version` take it from here.
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("layerrun.errors")
    if name in __all__:
        return getattr(import_module("layerrun.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
