"""Merges that keep some entries of each task vector and drop the others."""
