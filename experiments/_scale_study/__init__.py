"""Helpers of ``scale_study``."""
