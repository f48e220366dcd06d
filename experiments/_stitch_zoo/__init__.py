"""Helpers of ``experiments/stitch_zoo.py``."""
