"""Helpers of ``experiments/align_pretrained.py``."""
