"""Candidates mapped over a mesh axis."""
