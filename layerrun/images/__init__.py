"""Images as others make them: OCI layouts, docker archives, registries; their blobs, never a store."""
