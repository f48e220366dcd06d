"""Fits adapters in closed form, from moments of features."""
