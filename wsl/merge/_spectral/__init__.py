"""Merges of matrices by their singular values and vectors."""
