"""Matching two models by hard permutations, heads of attention included."""
