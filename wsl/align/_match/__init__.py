"""Matching two models: one hard permutation of each group."""
