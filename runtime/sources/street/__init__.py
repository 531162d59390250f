"""The rendered street of `scene://street`."""
