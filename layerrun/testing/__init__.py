"""For tests: a plugin of pytest, which finds it by itself once layerrun is installed. See docs/testing.md."""
