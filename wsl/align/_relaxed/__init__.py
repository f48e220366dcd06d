"""Matching by doubly stochastic matrices, of two models or of many."""
