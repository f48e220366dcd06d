"""Helpers of ``experiments/nested.py``."""
