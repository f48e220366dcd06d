"""Helpers of ``experiments/stitch_penalty.py``."""
