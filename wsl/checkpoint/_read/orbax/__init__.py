"""Orbax: the folders of runs, steps and items, and their arrays."""
