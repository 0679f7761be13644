"""Bases: the read-only root trees that apps stand on."""
