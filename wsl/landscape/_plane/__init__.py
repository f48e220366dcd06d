"""Planes in parameter space, and values on them."""
