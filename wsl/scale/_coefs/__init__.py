"""Coefficients by block: their layout, start and constraints."""
