"""Helpers of ``experiments/scale_task_vectors.py``."""
