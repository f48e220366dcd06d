"""Reads of leaves: several by one program, and without shared results."""
