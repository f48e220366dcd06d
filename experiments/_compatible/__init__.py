"""Helpers of ``experiments/compatible.py``."""
