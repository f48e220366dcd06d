"""Interpolation along great circles, of two or more models."""
