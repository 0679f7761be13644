"""Recipes: app layers built step by step over a base. `layerrun.building.result` has `rebuild`, for updates."""
