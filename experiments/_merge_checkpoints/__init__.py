"""Helpers of ``experiments/merge_checkpoints.py``."""
