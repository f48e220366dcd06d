"""Representations of different networks that can be compared."""
