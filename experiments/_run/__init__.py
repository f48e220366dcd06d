"""Shared by all runs: record, progress, figures, checks of the config."""
