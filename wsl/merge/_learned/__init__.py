"""Merges that minimise a loss, or that run the model."""
