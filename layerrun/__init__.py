"""layerrun: run any program in a layer of its own, and clear its data at once.

The command line stands on the rooms below it, which may be used as a library as well: `layerrun.store`,
`layerrun.bases`, `layerrun.layers` and `layerrun.runtime`. Nothing is imported here, because every import
is paid for at each start.
"""

__all__ = ["__version__"]

# The one place that says it: the package's metadata and `layerrun version` take it from here.
__version__ = "0.1.0"
