"""Numerical tests of symmetries, by random parameters and elements."""
