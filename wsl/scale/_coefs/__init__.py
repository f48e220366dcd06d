"""Coefficients by block: layout, initial values and constraints."""
