"""Helpers of ``experiments/merge_seeds.py``."""
