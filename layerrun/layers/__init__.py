"""Layers: what an upper changes, and how parts of it are taken back."""
