"""Leaves as matrices: which axes are batch, rows and columns."""
