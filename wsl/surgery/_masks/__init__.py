"""Sparse models: masks, adapters and averages that keep them."""
