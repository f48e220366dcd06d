"""Matching by doubly stochastic matrices, for two models or many."""
