"""The store: what exists, where it lies, and how it changes in single steps (see docs/store.md)."""
