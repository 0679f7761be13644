"""The in-process API: apps from a program of one's own, with subprocess's conventions. See docs/api.md."""

from layerrun.api.app import App
from layerrun.api.base import Base
from layerrun.api.process import Popen
from layerrun.api.store import Store
from layerrun.api.throwaway import Throwaway

__all__ = ["App", "Base", "Popen", "Store", "Throwaway"]
