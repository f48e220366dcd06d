"""Factors of low rank: of matrices, and of products of factors."""
