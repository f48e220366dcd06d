"""Vectors and covectors: axes on which rotations and linear maps act."""
