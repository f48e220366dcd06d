"""Vocabularies of different sizes: tokens, and the rows that hold them."""
