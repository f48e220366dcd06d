"""Families: many models in the memory of few, one of them on request."""
