"""Leaves in chunks: programs that may run on slices, and their execution."""
