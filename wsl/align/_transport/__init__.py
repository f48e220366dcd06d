"""Optimal transport between the units of models of different widths."""
