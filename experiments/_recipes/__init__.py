"""Helpers of ``experiments/recipes.py``."""
