"""Recipes: app layers built step by step over a base."""
