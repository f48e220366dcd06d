"""Helpers of ``experiments/relative.py``."""
