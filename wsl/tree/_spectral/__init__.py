"""Singular values, singular subspaces and polar factors of matrices."""
