"""Helpers of ``experiments/merge_vision.py``."""
