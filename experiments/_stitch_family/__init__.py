"""Helpers of ``experiments/stitch_family.py``."""
