"""The stitching penalty of two networks, with its controls."""
