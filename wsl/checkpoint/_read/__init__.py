"""Readers of checkpoints: one module for each format, one kind of lazy leaf."""
