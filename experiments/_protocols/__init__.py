"""Helpers of ``experiments/protocols.py``."""
