"""Bases from version to version: updates, health checks, what layers hide, deltas, rollback."""
