"""Compiling plans, launching them, and the verbs on apps and throwaways."""
