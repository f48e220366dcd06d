"""Configurations of the experiments: ``get_config(variant)``."""
