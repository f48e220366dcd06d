"""Helpers of ``experiments/align_barrier.py``."""
