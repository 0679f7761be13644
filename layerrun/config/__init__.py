"""Manifests: an app's configuration as TOML, to and from the model."""
