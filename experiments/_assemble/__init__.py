"""Helpers of ``experiments/assemble.py``."""
